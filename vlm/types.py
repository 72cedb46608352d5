"""The types that cross every boundary: requests, answers and geometry.

They use the standard library only, so that the router can import them without torch, and so that they pickle the same
on every side of a Ray handle.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Self

from vlm.errors import InvalidRequest, VlmError

FinishReason = Literal["stop", "length"]
CaptionLength = Literal["short", "normal", "long"]
TaskResolution = Literal["task", "native", "foreign", "plain", "default"]
ObjectKind = Literal["box", "point", "quad", "polygon"]

MAX_TASKS = 16
"""Maximum number of tasks of one request."""
MAX_IMAGES = 16
"""Maximum number of images of one request."""


# --- geometry: normalised to 0..1 of the image after EXIF orientation -----------------------------


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value))


@dataclass(frozen=True, slots=True)
class Point:
    """A point in the image, normalised: (0, 0) is the top left corner, (1, 1) the bottom right."""

    x: float
    y: float

    @classmethod
    def clamped(cls, x: float, y: float) -> Self:
        """The nearest point within the image."""
        return cls(_unit(x), _unit(y))


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box, normalised, with ``x_min <= x_max`` and ``y_min <= y_max``."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @classmethod
    def spanning(cls, points: tuple[Point, ...]) -> Self:
        """The smallest box around ``points`` (at least one), clamped to the image."""
        xs, ys = [_unit(p.x) for p in points], [_unit(p.y) for p in points]
        return cls(min(xs), min(ys), max(xs), max(ys))


Polygon = tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Detection:
    """One located object or text.

    Attributes:
        kind: Which of the fields ``box``, ``point``, ``quad`` and ``polygons`` the model gave.
        label: What it is, or None if the model does not say.
        text: The text that is read there (OCR), else None.
        score: From 0 to 1 (see docs/scores.md), or None if the model gives none: it is never made up.
        box: The enclosing box; every kind but ``point`` has one.
        point: For the kind ``point``.
        quad: Four corners, for the kind ``quad``.
        polygons: For the kind ``polygon``; an object may have several.
        spans: (start, end) offsets in code points into ``Grounding.text``, or into ``Grounding.reasoning`` if the model
            reasoned before it answered.
        image: Index of the image in which it is, of a request with several.
    """

    kind: ObjectKind
    label: str | None = None
    text: str | None = None
    score: float | None = None
    box: Box | None = None
    point: Point | None = None
    quad: Polygon | None = None
    polygons: tuple[Polygon, ...] | None = None
    spans: tuple[tuple[int, int], ...] = ()
    image: int = 0


@dataclass(frozen=True, slots=True)
class Grounding:
    """What an answer says about regions of the image.

    Attributes:
        task: Canonical task name (``"detect"``).
        native_task: The model's own name of the task (``"<OD>"``), or "" if it has none.
        text: The answer's text without special tokens; None for a task that only gives geometry.
        image_size: (width, height) in pixels after EXIF orientation, of several images that of the first; None without
            an image.
        detections: The objects, in the order of the model's output.
        truncated: Whether the model's output ended, or was malformed, in the middle of an object.
        raw: The decoded output with its special tokens.
        reasoning: The model's reasoning before its answer, into which spans point then; None if it did not reason.
        below_threshold: Number of objects that were left out because their score is below the task's ``threshold``.
        image_sizes: The size of each image of a request with several, else empty.
    """

    task: str
    native_task: str
    text: str | None
    image_size: tuple[int, int] | None
    detections: tuple[Detection, ...] = ()
    truncated: bool = False
    raw: str = ""
    reasoning: str | None = None
    below_threshold: int = 0
    image_sizes: tuple[tuple[int, int], ...] = ()

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The size of each image, whatever their number."""
        return self.image_sizes or (() if self.image_size is None else (self.image_size,))


# --- requests ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """A canonical task and its arguments.

    Attributes:
        name: ``caption``, ``query``, ``detect``, ``point``, ``ground``, ``ocr``, ``ocr_regions``, ...
        labels: What to look for; each label is looked for by itself.
        text: The text to ground, or the question.
        region: The region that the task is about.
        length: Length of a caption.
        max_objects: Maximum number of objects of each label, or None for the model's own limit.
        reasoning: Whether to reason before answering, if the model can.
        references: Points and boxes that the question is about, in order.
        threshold: Objects with a lower score are left out; those without a score are kept.
    """

    name: str
    labels: tuple[str, ...] = ()
    text: str | None = None
    region: Box | None = None
    length: CaptionLength = "normal"
    max_objects: int | None = None
    reasoning: bool = False
    references: tuple[Point | Box, ...] = ()
    threshold: float | None = None

    def unused(self, used: Collection[str]) -> tuple[str, ...]:
        """Names of the arguments that are set but not ``used``, as ``"task.labels"``, in the order of the fields."""
        arguments = [one for one in fields(self) if one.name != "name" and one.name not in used]
        return tuple(f"task.{one.name}" for one in arguments if getattr(self, one.name) != one.default)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. None takes the default of the checkpoint's generation config.

    Attributes:
        max_tokens: Maximum number of tokens to generate (at least 1); also bounded by the model's context.
        temperature: From 0, which is greedy, to 2.
        top_p: Probability of the nucleus, the smallest set of most likely tokens to sample from (0 < top_p <= 1).
        seed: The same seed gives the same answer, whatever else is in the batch.
        stop: The answer ends before the first of these strings (at most 4).
        repetition_penalty: Divides the positive logits of tokens that have occurred, and multiplies the negative ones
            (0 < repetition_penalty <= 10; 1 is off).
        no_repeat_ngram_size: No n-gram of this size occurs twice (0 to 64; 0 is off).
        forced_tokens: Token ids with which the answer starts.
        forced_last_token: Token id that is forced where ``max_tokens`` is reached.
        num_beams: Number of beams (1 to 8); 1 is no beam search.
        length_penalty: An answer of n tokens is ranked by its log-probability divided by n to this power (-8 to 8).
        early_stopping: Beam search ends once ``num_beams`` answers are complete, even if a better one may follow.
        logprobs: Report the log-probability of each chosen token, before any penalty or temperature.

    Raises:
        InvalidRequest: A value is out of range; ``param`` is the field's name.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    forced_tokens: tuple[int, ...] | None = None
    forced_last_token: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        _check(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "must be at least 1")
        _check(self.temperature is None or 0 <= self.temperature <= 2, "temperature", "must be from 0 to 2")
        _check(self.top_p is None or 0 < self.top_p <= 1, "top_p", "must be above 0 and at most 1")
        _check(
            self.repetition_penalty is None or 0 < self.repetition_penalty <= 10,
            "repetition_penalty",
            "must be above 0 and at most 10",
        )
        _check(
            self.no_repeat_ngram_size is None or 0 <= self.no_repeat_ngram_size <= 64,
            "no_repeat_ngram_size",
            "must be from 0 to 64",
        )
        _check(self.num_beams is None or 1 <= self.num_beams <= 8, "num_beams", "must be from 1 to 8")
        _check(self.length_penalty is None or -8 <= self.length_penalty <= 8, "length_penalty", "must be from -8 to 8")
        _check(len(self.stop) <= 4 and all(self.stop), "stop", "takes at most 4 strings, none of them empty")
        _check(
            not (self.temperature and (self.num_beams or 1) > 1),
            "num_beams",
            "above 1 needs temperature 0, because beam search cannot be combined with sampling; "
            "set temperature to 0 or num_beams to 1",
        )

    def over(self, defaults: Sampling) -> Sampling:
        """These settings, with every None taken from ``defaults``.

        Beam search cannot be combined with sampling: if a request asks for one of them, defaults for the other do not
        apply.
        """
        unset = {
            name: getattr(defaults, name)
            for name in ("max_tokens", "temperature", "top_p", "repetition_penalty", "no_repeat_ngram_size",
                         "forced_tokens", "forced_last_token", "num_beams", "length_penalty", "early_stopping")
            if getattr(self, name) is None
        }  # fmt: skip
        if self.temperature and unset.get("num_beams"):
            unset["num_beams"] = 1
        if self.num_beams not in {None, 1} and unset.get("temperature"):
            unset["temperature"] = 0.0
        return replace(self, **unset)


def _check(holds: bool, name: str, rule: str) -> None:
    if not holds:
        raise InvalidRequest(f"{name} {rule}.", param=name, code="invalid_value")


@dataclass(frozen=True, slots=True)
class Request:
    """A question about an image, as bytes, strings and numbers.

    Attributes:
        image: The encoded image (PNG, JPEG, WebP, GIF or BMP), or None if the model needs none.
        prompt: Native prompt (``"<OD>"``), beginning of a caption, or plain text; "" for none.
        task: A canonical task; it takes precedence over what ``prompt`` might mean.
        sampling: How tokens are chosen.
        stream: True to get the answer as it grows; False for one chunk with all of it, which costs less.
            An answer to several tasks or labels always comes as one chunk.
        tasks: Several tasks in place of ``task``, each answered by itself; ``prompt`` is for those without a text.
        images: Several images in place of ``image``, each asked about by itself.
        caller: Who asks: any text that differs between those who are to share a model fairly. It is compared, never
            read or logged. Requests without one are all of one caller.

    Raises:
        InvalidRequest: Both ``task`` and ``tasks`` are given, or ``image`` and ``images``, or too many of them.
    """

    image: bytes | None
    prompt: str = ""
    task: Task | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stream: bool = True
    tasks: tuple[Task, ...] = ()
    images: tuple[bytes, ...] = ()
    caller: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check(not self.tasks or self.task is None, "tasks", "and task exclude each other: send one of them")
        _check(len(self.tasks) <= MAX_TASKS, "tasks", f"must hold at most {MAX_TASKS}")
        _check(not self.images or self.image is None, "images", "and image exclude each other: send one of them")
        _check(len(self.images) <= MAX_IMAGES, "images", f"must hold at most {MAX_IMAGES}")


# --- answers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Numbers of tokens.

    Attributes:
        image_tokens, text_tokens: The prompt's; together they are all that was read.
        completion_tokens: Generated tokens.
        cached_tokens: Tokens of the prompt that cost no vision encode, because the image had been encoded before.
        reasoning_tokens: Generated tokens of the reasoning before the answer.
    """

    image_tokens: int
    text_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Times of one request in milliseconds.

    Attributes:
        prepare_ms: To decode, resize and tokenise it.
        queue_ms: From then until it first ran.
        first_token_ms: From then, queueing included, until its first token.
        total_ms: From the beginning to the end, preparing included.
    """

    prepare_ms: float
    queue_ms: float
    first_token_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    Attributes:
        text: The answer's text; equal to the texts of its chunks, joined. "" if ``has_text`` is False.
        token_ids: The generated token ids, end-of-sequence token included.
        logprobs: One for each token id if they were asked for, else empty.
        grounding: The answer's regions of the image.
        finish_reason: "stop" if the answer is complete, "length" if it was cut off.
        usage, timings: What it cost.
        resolution: How the task was found: named, native prompt, that of another model, plain text, or the model's
            default.
        ignored: The request's fields that this task does not use (``"prompt"``).
        has_text: True if the answer is text; False if it is the grounding's geometry.
        parts: The answer to each of the request's tasks, in order; empty for a request with one task. The other fields
            are then the first text among them, the grounding of the first, and the tokens of all. Each part is about
            all images of the request.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    grounding: Grounding
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    resolution: TaskResolution
    ignored: tuple[str, ...] = ()
    has_text: bool = True
    parts: tuple[Completion, ...] = ()

    @property
    def reasoning(self) -> str | None:
        """The reasoning before ``text``; None if the model did not reason."""
        with_text = next((part for part in self.parts if part.has_text), self)
        return with_text.grounding.reasoning


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer as it grows; the last one, and only it, has the whole completion.

    A replica that cannot answer sends ``error`` in the last chunk instead of raising it: Ray logs what a replica raises
    with its traceback, even where only the client is at fault. Engines raise; their chunks have no ``error``.

    ``text`` and ``reasoning`` never end inside a character. A task that only gives geometry has no text. ``reasoning``
    comes before the text; joined, it is that of the completion's grounding.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    completion: Completion | None = None
    reasoning: str = ""
    error: VlmError | None = None

    @classmethod
    def joined(cls, chunks: Sequence[Chunk]) -> Self:
        """Join consecutive chunks, at least one."""
        return cls(
            text="".join(chunk.text for chunk in chunks),
            token_ids=tuple(token for chunk in chunks for token in chunk.token_ids),
            logprobs=tuple(logprob for chunk in chunks for logprob in chunk.logprobs),
            completion=chunks[-1].completion,
            reasoning="".join(chunk.reasoning for chunk in chunks),
            error=chunks[-1].error,
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a replica has loaded.

    Attributes:
        family: Folder of ``vlm.models`` that serves it (``"florence2"``).
        checkpoint: Folder or hub id, as configured.
        revision: Commit of the hub repository; None for a folder.
        parameters: Number of the model's parameters.
        dtype, device: Where and how it runs (``"float32"``, ``"cpu"``).
    """

    family: str
    checkpoint: str
    revision: str | None
    parameters: int
    dtype: str
    device: str
