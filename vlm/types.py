"""The types that cross every boundary: requests, answers and geometry.

They use the standard library only, so that the router can import them without torch, and so that they pickle the same
on every side of a Ray handle. ``Sampling``, a request's largest part, is in ``vlm.sampling``, and ``ModelInfo`` in
``vlm.model_info``; import both from here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Literal, Self

from vlm.errors import VlmError
from vlm.model_info import ModelInfo as ModelInfo  # noqa: PLC0414  for those who import it from here
from vlm.route import Route
from vlm.sampling import Sampling as Sampling  # noqa: PLC0414  for those who import it from here
from vlm.sampling import check
from vlm.trace import Trace

FinishReason = Literal["stop", "length"]
CaptionLength = Literal["short", "normal", "long"]
TaskResolution = Literal["task", "native", "foreign", "plain", "default"]
Priority = Literal["interactive", "batch"]
ObjectKind = Literal["box", "point", "quad", "polygon"]

MAX_TASKS = 16
"""Maximum number of tasks of one request."""
MAX_IMAGES = 16
"""Maximum number of images of one request."""

MAX_CHOICES = 8
"""Maximum number of answers to one request, each of which takes a place of its own: as many as beams."""


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

    def pixels(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in whole pixels of an image of ``size``: at least one pixel, within the image."""
        width, height = size
        left, top = min(round(self.x_min * width), width - 1), min(round(self.y_min * height), height - 1)
        right, bottom = max(round(self.x_max * width), left + 1), max(round(self.y_max * height), top + 1)
        return left, top, right, bottom


Polygon = tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Cropped:
    """A part of an encoded image, which is cut out once it is decoded.

    Attributes:
        image: The encoded image.
        box: The part, in whole pixels as :meth:`Box.pixels` rounds.
    """

    image: bytes
    box: Box

    def size(self, whole: tuple[int, int]) -> tuple[int, int]:
        """(width, height) in pixels of the part, of an image of the size ``whole``."""
        left, top, right, bottom = self.box.pixels(whole)
        return right - left, bottom - top


EncodedImage = bytes | Cropped
"""What is decoded: an image, or a part of one."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One located object or text.

    Attributes:
        kind: Which of the fields ``box``, ``point``, ``quad`` and ``polygons`` the model gave.
        label: What it is, or None if the model does not say.
        text: The text that is read there (OCR), else None.
        score: From 0 to 1 (see docs/scores.md), or None if the model gives none: it is never made up.
        confidence: The probability that it is right, by its score; None where the checkpoint is not calibrated for it.
        box: The enclosing box; every kind but ``point`` has one.
        point: For the kind ``point``.
        quad: Four corners, for the kind ``quad``.
        polygons: For the kind ``polygon``; an object may have several.
        spans: (start, end) offsets in code points into ``Grounding.text``, or into ``Grounding.reasoning`` if the model
            reasoned before it answered.
        image: Index of the image in which it is, of a request with several.
        answers: What was then asked about this object alone, by a pipeline; empty for any other request.
        consensus: Which models agree on it, where several were asked; None for an object of one model.
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
    confidence: float | None = None
    answers: tuple[ObjectAnswer, ...] = ()
    consensus: Consensus | None = None


@dataclass(frozen=True, slots=True)
class Consensus:
    """What several models agree on about one object.

    Attributes:
        votes: How many have found it.
        models: Their names, in alphabetical order.
        spread: How far they are from each other: the mean of 1 - IoU with the merged box, or for points of the distance
            as a share of the image's sides. 0 if all are the same.
    """

    votes: int
    models: tuple[str, ...]
    spread: float


@dataclass(frozen=True, slots=True)
class ObjectAnswer:
    """What a model says about one object that was found before.

    Attributes:
        model: Canonical name.
        task: Canonical name of the task.
        text: The answer's text; None for geometry alone, and where there is no answer.
        detections: Its objects, in the frame of the whole image.
        error: (code, message) where there is no answer.
    """

    model: str
    task: str
    text: str | None = None
    detections: tuple[Detection, ...] = ()
    error: tuple[str, str] | None = None


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
        n: Number of answers to generate (1 to 8), which share one encoding of the image. With a seed, each has random
            numbers of its own, and the first is as if ``n`` were 1; without sampling, all are equal. More than 1 cannot
            be combined with several tasks, labels or images.
        priority: "batch" lets others go first, for a while; it changes when an answer comes, and not what it is.
        request_id: For the lines that are logged about it; it has no part in the answer.
        route: Where it has been; no answer depends on it.
        trace: The trace that it is a part of, if it is traced; no answer depends on it.
        crop: The part of ``image`` that is asked about, as if it were the whole; None for all of it. Locations are
            then of that part, from 0 to 1.

    Raises:
        InvalidRequest: Both ``task`` and ``tasks`` are given, or ``image`` and ``images``, or too many of them; or a
            wrong ``n``.
    """

    image: bytes | None
    prompt: str = ""
    task: Task | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stream: bool = True
    tasks: tuple[Task, ...] = ()
    images: tuple[bytes, ...] = ()
    caller: str | None = field(default=None, repr=False)
    n: int = 1
    priority: Priority = "interactive"
    request_id: str = field(default="", compare=False)
    route: Route | None = field(default=None, repr=False, compare=False)
    trace: Trace | None = field(default=None, repr=False, compare=False)
    crop: Box | None = None

    def __post_init__(self) -> None:
        check(not self.tasks or self.task is None, "tasks", "and task exclude each other: send one of them")
        check(len(self.tasks) <= MAX_TASKS, "tasks", f"must hold at most {MAX_TASKS}")
        check(not self.images or self.image is None, "images", "and image exclude each other: send one of them")
        check(len(self.images) <= MAX_IMAGES, "images", f"must hold at most {MAX_IMAGES}")
        check(1 <= self.n <= MAX_CHOICES, "n", f"must be from 1 to {MAX_CHOICES}")
        check(self.crop is None or self.image is not None, "crop", "needs one image")

    @property
    def encoded(self) -> EncodedImage | None:
        """What of the image is to be decoded; None without one."""
        return self.image if self.image is None or self.crop is None else Cropped(self.image, self.crop)


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

    @classmethod
    def sum(cls, usages: Sequence[Usage]) -> Self:
        """Those of several answers together."""
        return cls(*(sum(getattr(one, field.name) for one in usages) for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class Timings:
    """Times of one request in milliseconds.

    Attributes:
        prepare_ms: To decode, resize and tokenise it.
        queue_ms: From then until it first ran.
        first_token_ms: From then, queueing included, until its first token.
        total_ms: From the beginning to the end, preparing included.
        encode_ms: To encode its image, together with those that started with it: a part of the time between
            ``queue_ms`` and ``first_token_ms``. 0 if the image had been encoded before. On a GPU only what it took to
            hand the work to the device, which is done later.
    """

    prepare_ms: float
    queue_ms: float
    first_token_ms: float
    total_ms: float
    encode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """One of the likeliest tokens of a step, whether or not it was chosen.

    Attributes:
        token_id: Its id.
        logprob: Its log-probability before any penalty or temperature.
        token_bytes: What it would have added to the output, in UTF-8; perhaps only part of a character.
    """

    token_id: int
    logprob: float
    token_bytes: bytes


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
        token_bytes: What each token added to the output, in UTF-8, if log-probabilities were asked for. A token may
            hold part of a character; joined, they are the grounding's ``raw``.
        top_logprobs: The likeliest tokens of each step, best first, if they were asked for. They are fewer where the
            model has fewer to choose from, and none where it does not choose a token (a coordinate of Moondream).
        choices: All answers, if the request asked for several; else empty. The other fields are then those of the
            first, but ``usage`` adds up the tokens of all and counts the prompt once.
        confidence: The probability that the text is right; None unless log-probabilities were asked for and the
            checkpoint is calibrated for the task.
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
    token_bytes: tuple[bytes, ...] = ()
    top_logprobs: tuple[tuple[TopLogprob, ...], ...] = ()
    choices: tuple[Completion, ...] = ()
    confidence: float | None = None

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
    comes before the text; joined, it is that of the completion's grounding. The fields about tokens are as in the
    completion.

    With several choices, ``choices`` has what each of them adds, with its number as ``index``; the other fields are
    then empty but for the ``completion`` of the last chunk.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    completion: Completion | None = None
    reasoning: str = ""
    error: VlmError | None = None
    token_bytes: tuple[bytes, ...] = ()
    top_logprobs: tuple[tuple[TopLogprob, ...], ...] = ()
    index: int = 0
    choices: tuple[Chunk, ...] = ()

    @classmethod
    def whole(cls, completion: Completion) -> Self:
        """The one chunk of an answer that comes all at once."""
        if completion.choices:
            pieces = [replace(cls.whole(one), completion=None) for one in completion.choices]
            numbered = tuple(replace(piece, index=index) for index, piece in enumerate(pieces))
            return cls(completion=completion, choices=numbered)
        return cls(
            text=completion.text,
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            completion=completion,
            reasoning=completion.reasoning or "",
            token_bytes=completion.token_bytes,
            top_logprobs=completion.top_logprobs,
        )

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
            token_bytes=tuple(piece for chunk in chunks for piece in chunk.token_bytes),
            top_logprobs=tuple(step for chunk in chunks for step in chunk.top_logprobs),
            index=chunks[0].index,
            choices=cls._joined_choices(chunks),
        )

    @classmethod
    def _joined_choices(cls, chunks: Sequence[Chunk]) -> tuple[Self, ...]:
        pieces = sorted((piece for chunk in chunks for piece in chunk.choices), key=_index)  # keeps those of a choice
        return tuple(cls.joined([*same]) for _, same in groupby(pieces, key=_index))


def _index(chunk: Chunk) -> int:
    return chunk.index
