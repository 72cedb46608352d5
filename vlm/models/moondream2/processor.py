"""Moondream 2's processor: an image and words to numbers, and generated ids to text, boxes and points.

Owns the layout of a prompt, which follows the image's own positions. Knows no tensors and no engine. Images are
turned upright by their EXIF orientation first, which the original does not do; all else is as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlm.checkpoint.files import Checkpoint
from vlm.errors import InvalidRequest
from vlm.image.decode import ImageLimits, decode
from vlm.models.moondream2.config import grid, settings
from vlm.models.moondream2.locations import PlaceIds
from vlm.models.moondream2.parsing import Reader
from vlm.models.moondream2.stages import OBJECTS
from vlm.models.moondream2.tasks import OFFERED, ResolvedTask, resolve_task
from vlm.models.moondream2.tiling import Tiling, normalised
from vlm.models.moondream2.vocabulary import Ids, Vocabulary
from vlm.models.processor import Inputs, Parsed, Preprocess, ProcessedImage
from vlm.types import Box, Point, Request

MAX_NEW_TOKENS = 768
"""What the original generates at most; what is thought counts."""

Values = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Moondream2Processor:
    """Implements :class:`vlm.models.processor.Processor`.

    Attributes:
        tiling: Cuts the images.
        ids: Marks and prompts.
        vocabulary: Text to ids and back.
        places: Ids that are places.
        prefix: Positions that an image takes before the prompt.
        max_positions: Longest sequence, image and answer included.
        limits: What an image may be.
    """

    tiling: Tiling
    ids: Ids
    vocabulary: Vocabulary
    places: PlaceIds
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
        config = settings(checkpoint.config)
        ids = Ids.of(config.section("tokenizer"))
        vision = config.section("vision")
        return cls(
            tiling=Tiling.of(vision),
            ids=ids,
            vocabulary=Vocabulary.from_checkpoint(checkpoint, ids),
            places=PlaceIds.of(config),
            prefix=1 + grid(vision) ** 2,
            max_positions=config.section("text").integer("max_context"),
            limits=limits,
        )

    def preprocess(self, image: bytes) -> ProcessedImage:
        """Decode, resize and cut. Raises InvalidImage."""
        decoded = decode(image, self.limits)
        return ProcessedImage(normalised(self.tiling.canvas(decoded)), decoded.size)

    def prepare(self, request: Request, preprocess: Preprocess | None = None) -> Inputs:
        """Find the task, tokenise its words, decode and cut the image.

        Raises:
            InvalidRequest: An image or an argument is missing, or the words leave no room for an answer.
            InvalidImage: The image cannot be read.
            UnsupportedTask: The task is not offered; the message lists those that are.
        """
        asked = resolve_task(request)
        has_image = request.image is not None
        self._refuse_what_is_newer(asked, has_image=has_image)
        prompt = self._prompt(asked) if has_image else (self.ids.bos, *self._prompt(asked))
        room = self._room(len(prompt), has_image)
        image = None if request.image is None else (preprocess or self.preprocess)(request.image)
        steps = OBJECTS.get(asked.native)
        return Inputs(
            pixels=None if image is None else image.pixels,
            prompt_ids=prompt,
            encoder_ids=(),
            task=asked.task,
            native_task=asked.native,
            resolution=asked.resolution,
            image_size=None if image is None else image.size,
            image_tokens=self.prefix if has_image else 0,
            text_tokens=len(prompt),
            has_text=steps is None,
            ignored=asked.ignored,
            scored=asked.reasoning or steps is not None,
            limit=None if steps is None else len(steps) * asked.max_objects,
            values=tuple(value for reference in asked.references for value in _values(reference)),
            max_reasoning_tokens=_thinking(request, room) if asked.reasoning else None,
            reasoning_end_id=self.ids.answer if asked.reasoning else None,
        )

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text; places have none, and marks only if ``special``."""
        return self.vocabulary.decode(token_ids, special=special)

    def parse(
        self, token_ids: Sequence[int], inputs: Inputs, *, finished: bool, logprobs: Sequence[float] = ()
    ) -> Parsed:
        """The answer's text, or the objects that it says, with the words that were asked for as their label."""
        if inputs.native_task == "detect":
            return self.reader.boxes(token_ids, logprobs, self._label(inputs, self.ids.detect))
        if inputs.native_task == "point":
            return self.reader.points(token_ids, logprobs, self._label(inputs, self.ids.point))
        if inputs.max_reasoning_tokens is not None:
            return self.reader.thought(token_ids, logprobs, finished=finished)
        return self.reader.text(token_ids, finished=finished)

    @property
    def reader(self) -> Reader:
        """What reads the answers."""
        return Reader(self.places, self.ids, self.decode)

    def _prompt(self, asked: ResolvedTask) -> tuple[int, ...]:
        known, encode = self.ids, self.vocabulary.encode
        match asked.native:
            case "caption":
                return known.captions[asked.length]
            case "query":
                before, after = known.query
                places = tuple(token for reference in asked.references for token in self._placeholders(reference))
                return (*before, *places, *encode(known.before_question + asked.words), *after, *self._ending(asked))
            case _:
                before, after = known.detect if asked.native == "detect" else known.point
                return (*before, *encode(known.before_label + asked.words), *after)

    def _ending(self, asked: ResolvedTask) -> tuple[int, ...]:
        """What follows the end of a question: the original ends one twice, as in training, that needs no thought."""
        if asked.reasoning:
            return (self.ids.thinking,)
        return self.ids.query[1] if self.ids.thinks else ()

    def _refuse_what_is_newer(self, asked: ResolvedTask, *, has_image: bool) -> None:
        """Older revisions know fewer tasks."""
        missing = {
            "long captions": ("task.length", asked.native == "caption" and not self.ids.captions[asked.length]),
            "reasoning": ("task.reasoning", asked.reasoning and not self.ids.thinks),
            "references": ("task.references", bool(asked.references) and not self.ids.thinks),
            "questions without an image": ("image", not has_image and not self.ids.thinks),
        }
        for what, (param, asked_for) in missing.items():
            if asked_for:
                raise InvalidRequest(f"This revision of Moondream 2 has no {what}.", param=param, code="invalid_value")

    def _placeholders(self, reference: Point | Box) -> tuple[int, ...]:
        place = (self.ids.coordinate, self.ids.coordinate)
        return place if isinstance(reference, Point) else (*place, self.ids.size)

    def _room(self, prompt: int, has_image: bool) -> int:
        """Positions left for the answer."""
        read = prompt + self.prefix * has_image
        if read >= self.max_positions:
            raise InvalidRequest(
                f"Prompt and image have {read} tokens; the model holds {self.max_positions}, the answer included.",
                param="prompt",
                code="context_length_exceeded",
            )
        return self.max_positions - read

    def _label(self, inputs: Inputs, template: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
        before, after = template
        return self.decode(inputs.prompt_ids[len(before) : len(inputs.prompt_ids) - len(after)]).strip()


def _values(reference: Point | Box) -> Values:
    """A point's x and y; a box's middle, then its size."""
    if isinstance(reference, Point):
        return (reference.x,), (reference.y,)
    middle = ((reference.x_min + reference.x_max) / 2,), ((reference.y_min + reference.y_max) / 2,)
    return (*middle, (reference.x_max - reference.x_min, reference.y_max - reference.y_min))


def _thinking(request: Request, room: int) -> int:
    """Most ids of thought: half of what may be written, so that an answer always follows.

    The original allows as many for the answer again.
    """
    most = request.sampling.max_tokens or MAX_NEW_TOKENS
    return (min(most, room) - 1) // 2
