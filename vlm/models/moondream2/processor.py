"""Moondream 2's processor: an image and a task to numbers, and generated ids to text, boxes and points.

A prompt follows the positions of its image. It is built as ``moondream.py`` in the repository of vikhyatk/moondream2
does, except that images are first turned upright by their EXIF orientation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlm.checkpoint.files import Checkpoint
from vlm.errors import InvalidRequest, prompt_too_long
from vlm.image.decode import ImageLimits
from vlm.models.image_reader import ImageReader
from vlm.models.moondream2.locations import LocationIds
from vlm.models.moondream2.parsing import Reader
from vlm.models.moondream2.revisions import grid, read_config
from vlm.models.moondream2.stages import OBJECT_STAGES
from vlm.models.moondream2.tasks import OFFERED, ResolvedTask, resolve_task
from vlm.models.moondream2.tiling import Tiling, pixel_table
from vlm.models.moondream2.vocabulary import Ids, Vocabulary
from vlm.models.processor import Array, Inputs, Parsed, Preprocess
from vlm.models.vocabulary import token_bytes
from vlm.types import Box, Point, Request

MAX_NEW_TOKENS = 768
"""Default of the original's ``max_tokens``; here reasoning counts too."""

Values = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Moondream2Processor:
    """Implements :class:`vlm.models.processor.Processor`.

    Attributes:
        tiling: Cuts images into crops.
        ids: Special tokens and prompts.
        vocabulary: Text to ids and back.
        locations: Ids of coordinates and sizes.
        prefix: Number of positions that an image takes before the prompt.
        max_positions: Maximum length of a sequence, image and answer included.
        limits: What an image may be.
    """

    tiling: Tiling
    ids: Ids
    vocabulary: Vocabulary
    locations: LocationIds
    prefix: int
    max_positions: int
    limits: ImageLimits = ImageLimits()

    tasks = OFFERED

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, limits: ImageLimits = ImageLimits()) -> Moondream2Processor:
        """Read config.json and the tokenizer.

        Raises:
            CheckpointError: A file is missing or broken, or the tokenizer is not that of the weights.
        """
        config = read_config(checkpoint.config)
        ids = Ids.of(config.section("tokenizer"))
        vision = config.section("vision")
        return cls(
            tiling=Tiling.of(vision),
            ids=ids,
            vocabulary=Vocabulary.from_checkpoint(checkpoint, ids),
            locations=LocationIds.of(config),
            prefix=1 + grid(vision) ** 2,
            max_positions=config.section("text").integer("max_context"),
            limits=limits,
        )

    @property
    def pixel_table(self) -> Array:
        """See :class:`~vlm.models.processor.Processor`."""
        return pixel_table()

    @property
    def preprocess(self) -> Preprocess:
        """Decodes, resizes and cuts an image."""
        return ImageReader(self.tiling.canvas, self.limits)

    def prepare(self, request: Request, preprocess: Preprocess | None = None) -> Inputs:
        """Find the task, tokenise its prompt, decode the image and cut it into crops.

        Raises:
            InvalidRequest: The image or an argument is missing, or the prompt leaves no room for an answer.
            InvalidImage: The image cannot be read.
            UnsupportedTask: The model does not have the task; the message lists those that it has.
        """
        resolved = resolve_task(request)
        has_image = request.image is not None
        self._check_revision(resolved, has_image=has_image)
        prompt = self._prompt(resolved) if has_image else (self.ids.bos, *self._prompt(resolved))
        room = self._room(len(prompt), has_image)
        image = None if request.encoded is None else (preprocess or self.preprocess)(request.encoded)
        steps = OBJECT_STAGES.get(resolved.native)
        return Inputs(
            pixels=None if image is None else image.pixels,
            prompt_ids=prompt,
            encoder_ids=(),
            task=resolved.task,
            native_task=resolved.native,
            resolution=resolved.resolution,
            image_size=None if image is None else image.size,
            image_tokens=self.prefix if has_image else 0,
            text_tokens=len(prompt),
            has_text=steps is None,
            chooses_tokens=steps is None,
            ignored=resolved.ignored,
            scored=resolved.reasoning or steps is not None,
            limit=None if steps is None else len(steps) * resolved.max_objects,
            crops=1 if image is None else self.tiling.crops(*image.size),
            values=tuple(value for reference in resolved.references for value in _values(reference)),
            max_reasoning_tokens=_max_reasoning_tokens(request, room) if resolved.reasoning else None,
            reasoning_end_id=self.ids.answer if resolved.reasoning else None,
        )

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text; special tokens only if ``special``. Coordinates and sizes have no text."""
        return self.vocabulary.decode(token_ids, special=special)

    def token_bytes(self, token_id: int, before: Iterable[int]) -> bytes:
        """See :class:`~vlm.models.processor.Processor`; coordinates and sizes have no text."""
        vocabulary = self.vocabulary
        return token_bytes(vocabulary.tokenizer, token_id, before) if token_id < vocabulary.size else b""

    def parse(
        self, token_ids: Sequence[int], inputs: Inputs, *, finished: bool, logprobs: Sequence[float] = ()
    ) -> Parsed:
        """The answer's text and reasoning, or its objects, labelled with the text that was asked for."""
        if inputs.native_task == "detect":
            return self.reader.boxes(token_ids, logprobs, self._label(inputs, self.ids.detect))
        if inputs.native_task == "point":
            return self.reader.points(token_ids, logprobs, self._label(inputs, self.ids.point))
        if inputs.max_reasoning_tokens is not None:
            return self.reader.reasoning(token_ids, logprobs, finished=finished)
        return self.reader.text(token_ids, finished=finished)

    @property
    def reader(self) -> Reader:
        """Reads the answers."""
        return Reader(self.locations, self.ids, self.decode)

    def _prompt(self, resolved: ResolvedTask) -> tuple[int, ...]:
        ids, encode = self.ids, self.vocabulary.encode
        match resolved.native:
            case "caption":
                return ids.captions[resolved.length]
            case "query":
                before, after = ids.query
                references = tuple(
                    token for reference in resolved.references for token in self._placeholders(reference)
                )
                return (
                    *before,
                    *references,
                    *encode(ids.before_question + resolved.text),
                    *after,
                    *self._ending(resolved),
                )
            case _:
                before, after = ids.detect if resolved.native == "detect" else ids.point
                return (*before, *encode(ids.before_label + resolved.text), *after)

    def _ending(self, resolved: ResolvedTask) -> tuple[int, ...]:
        """What follows the end of a question; without reasoning, the original repeats the end, as in its training."""
        if resolved.reasoning:
            return (self.ids.reasoning,)
        return self.ids.query[1] if self.ids.can_reason else ()

    def _check_revision(self, resolved: ResolvedTask, *, has_image: bool) -> None:
        """Raise InvalidRequest for what an older revision does not have."""
        missing = {
            "long captions": ("task.length", resolved.native == "caption" and not self.ids.captions[resolved.length]),
            "reasoning": ("task.reasoning", resolved.reasoning and not self.ids.can_reason),
            "references": ("task.references", bool(resolved.references) and not self.ids.can_reason),
            "questions without an image": ("image", not has_image and not self.ids.can_reason),
        }
        for what, (param, is_missing) in missing.items():
            if is_missing:
                raise InvalidRequest(f"This revision of Moondream 2 has no {what}.", param=param, code="invalid_value")

    def _placeholders(self, reference: Point | Box) -> tuple[int, ...]:
        point = (self.ids.coordinate, self.ids.coordinate)
        return point if isinstance(reference, Point) else (*point, self.ids.size)

    def _room(self, prompt: int, has_image: bool) -> int:
        """Number of positions left for the answer. Raises InvalidRequest if there are none."""
        read = prompt + self.prefix * has_image
        if read >= self.max_positions:
            raise prompt_too_long(read, self.max_positions)
        return self.max_positions - read

    def _label(self, inputs: Inputs, template: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
        before, after = template
        return self.decode(inputs.prompt_ids[len(before) : len(inputs.prompt_ids) - len(after)]).strip()


def _values(reference: Point | Box) -> Values:
    """A point's x and y; for a box, those of its middle, then (width, height)."""
    if isinstance(reference, Point):
        return (reference.x,), (reference.y,)
    middle = ((reference.x_min + reference.x_max) / 2,), ((reference.y_min + reference.y_max) / 2,)
    return (*middle, (reference.x_max - reference.x_min, reference.y_max - reference.y_min))


def _max_reasoning_tokens(request: Request, room: int) -> int:
    """Half of the tokens that may be generated, so that an answer always follows.

    The original allows ``max_tokens`` for reasoning, and as many again for the answer.
    """
    max_tokens = request.sampling.max_tokens or MAX_NEW_TOKENS
    return (min(max_tokens, room) - 1) // 2
