"""Florence-2's processor: an image and a task to numbers, and generated token ids to text and geometry.

The encoder reads the image's positions, ``<s>``, the task's sentence and ``</s>``. Sources: transformers'
``Florence2Processor``, and the processor in the repository of microsoft/Florence-2-base.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError, prompt_too_long
from vlm.image.decode import ImageLimits
from vlm.image.preprocess import ImagePreprocessor, image_settings
from vlm.models.florence2.parsing import (
    as_points,
    read_boxes,
    read_boxes_or_polygons,
    read_phrases,
    read_polygons,
    read_quads,
    read_region_text,
    read_regions,
    runs,
)
from vlm.models.florence2.tasks import BY_TOKEN, OFFERED, POINT, NativeTask, ResolvedTask, resolve_task
from vlm.models.florence2.vocabulary import Vocabulary
from vlm.models.image_reader import ImageReader
from vlm.models.processor import Array, Inputs, Parsed, Preprocess
from vlm.models.tasks import missing_image
from vlm.models.vocabulary import token_bytes
from vlm.types import Request

DROPPED_PHRASES = frozenset({
    "a", "a group", "a set", "all", "an", "another", "any", "anybody", "anyone", "anything", "each", "each other",
    "everybody", "everyone", "everything", "few", "he", "her", "hers", "herself", "him", "himself", "his", "I",
    "image", "images", "it", "its", "itself", "lots", "many", "me", "mine", "myself", "nobody", "none", "one",
    "one another", "oneself", "other objects", "our", "ours", "ourselves", "several", "she", "some", "somebody",
    "someone", "something", "that", "the", "the image", "their", "theirs", "them", "themselves", "these", "they",
    "this", "those", "us", "we", "what", "which", "who", "whom", "whose", "you", "your", "yours", "yourself",
    "yourselves",
})  # fmt: skip
"""Phrases that the original upload's post-processor leaves out; a native checkpoint has its own list."""


@dataclass(frozen=True, slots=True)
class Florence2Processor:
    """Implements :class:`vlm.models.processor.Processor`.

    Attributes:
        images: Resizes images, and has the table that normalises them.
        vocabulary: Text to ids and back.
        image_positions: Number of vectors that the vision encoder makes of one image.
        max_positions: Maximum number of positions that the text encoder reads, image positions included.
        dropped_phrases: Phrases that the task "ground" leaves out.
        limits: What an image may be.
    """

    images: ImagePreprocessor
    vocabulary: Vocabulary
    image_positions: int
    max_positions: int
    dropped_phrases: frozenset[str] = DROPPED_PHRASES
    limits: ImageLimits = ImageLimits()

    tasks = OFFERED

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, limits: ImageLimits = ImageLimits()) -> Florence2Processor:
        """Read settings and tokenizer of a native or an original upload.

        Raises:
            CheckpointError: A file is missing, broken, or not of Florence-2.
        """
        config = ConfigReader(checkpoint.config, f"config.json in {checkpoint.folder}")
        images = ImagePreprocessor.from_checkpoint(checkpoint)
        return cls(
            images=images,
            vocabulary=Vocabulary.from_checkpoint(checkpoint),
            image_positions=_image_positions(checkpoint, config, images),
            max_positions=config.section("text_config").integer("max_position_embeddings", 1024),
            dropped_phrases=_dropped_phrases(checkpoint),
            limits=limits,
        )

    @property
    def pixel_table(self) -> Array:
        """See :class:`~vlm.models.processor.Processor`."""
        return self.images.pixel_table

    @property
    def preprocess(self) -> Preprocess:
        """Decodes and resizes an image."""
        return ImageReader(self.images.pixels, self.limits)

    def prepare(self, request: Request, preprocess: Preprocess | None = None) -> Inputs:
        """Find the task, tokenise its sentence, decode and resize the image.

        Raises:
            InvalidRequest: The image or an argument is missing, an argument does not fit, or the text is too long.
            InvalidImage: The image cannot be read.
            UnsupportedTask: The model does not have the task; the message lists those that it has.
        """
        resolved = resolve_task(request)
        if request.encoded is None:
            raise missing_image("Florence-2")
        encoder_ids = self._encoder_ids(resolved)
        image = (preprocess or self.preprocess)(request.encoded)
        return Inputs(
            pixels=image.pixels,
            prompt_ids=(self.vocabulary.eos,),  # BART's decoder starts from </s>
            encoder_ids=encoder_ids,
            task=resolved.name,
            native_task=resolved.task.token,
            resolution=resolved.resolution,
            image_size=image.size,
            image_tokens=self.image_positions,
            text_tokens=len(encoder_ids) - self.image_positions,
            has_text=resolved.task.answer == "text",
            ignored=resolved.ignored,
            scored=resolved.task.answer != "text",
        )

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text, as transformers' ``decode``; ids that the tokenizer does not have give no text.

        Without ``special``, locations and special tokens are left out, even if a file says that they are ordinary ones.
        """
        return self.vocabulary.decode(token_ids, special=special)

    def token_bytes(self, token_id: int, before: Iterable[int]) -> bytes:
        """See :class:`~vlm.models.processor.Processor`."""
        return token_bytes(self.vocabulary.tokenizer, token_id, before)

    def parse(
        self, token_ids: Sequence[int], inputs: Inputs, *, finished: bool, logprobs: Sequence[float] = ()
    ) -> Parsed:
        """Read the answer to ``inputs.native_task``: text, or labelled geometry in 0..1 of the image."""
        task = BY_TOKEN[inputs.native_task]
        if task.answer == "text":
            return self._text(task, token_ids, finished)
        parsed = self._geometry(task, token_ids, logprobs, inputs, finished)
        return as_points(parsed) if inputs.task == POINT else parsed

    def _text(self, task: NativeTask, token_ids: Sequence[int], finished: bool) -> Parsed:
        text = self.decode(token_ids).strip()
        if task.region:
            return read_region_text(runs(token_ids, self.vocabulary), text, finished=finished)
        return Parsed(text, truncated=not finished)

    def _geometry(
        self, task: NativeTask, token_ids: Sequence[int], logprobs: Sequence[float], inputs: Inputs, finished: bool
    ) -> Parsed:
        if task.answer == "polygons":
            return read_polygons(token_ids, self.vocabulary, logprobs, labelled=False, finished=finished)
        if task.answer == "boxes_or_polygons":
            return read_boxes_or_polygons(token_ids, self.vocabulary, logprobs, finished=finished)
        given = runs(token_ids, self.vocabulary, logprobs)
        if task.answer == "quads":
            return read_quads(given, finished=finished)
        if task.answer == "phrases":
            return read_phrases(given, self._caption(task, inputs), self.dropped_phrases, finished=finished)
        if task.answer == "regions":
            return read_regions(given, finished=finished)
        return read_boxes(given, finished=finished)

    def _encoder_ids(self, resolved: ResolvedTask) -> tuple[int, ...]:
        vocabulary = self.vocabulary
        text = (vocabulary.bos, *vocabulary.encode(resolved.task.prompt(resolved.argument)), vocabulary.eos)
        room = self.max_positions - self.image_positions
        if len(text) > room:
            raise prompt_too_long(self.image_positions + len(text), self.max_positions)
        return (vocabulary.image,) * self.image_positions + text

    def _caption(self, task: NativeTask, inputs: Inputs) -> str:
        sentence = self.decode(inputs.encoder_ids[self.image_positions + 1 : -1], special=True)
        return task.argument(sentence) or ""


def _image_positions(checkpoint: Checkpoint, config: ConfigReader, images: ImagePreprocessor) -> int:
    """The number of cells of the vision tower's last stage, and one for their mean."""
    vision = config.section("vision_config")
    stages = zip(*(vision.integers(key) for key in ("patch_size", "patch_stride", "patch_padding")), strict=False)
    height, width = images.height, images.width
    for kernel, stride, padding in stages:
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    positions = height * width + 1
    declared = image_settings(checkpoint).get("image_seq_length")
    if declared not in {None, positions}:
        raise CheckpointError(
            f"image_seq_length is {declared} in the preprocessor's config in {checkpoint.folder}, but config.json's "
            f"vision tower makes {positions} of an image of {images.width}x{images.height}: use matching files."
        )
    return positions


def _dropped_phrases(checkpoint: Checkpoint) -> frozenset[str]:
    """The list of ``processor_config.json``; the published one if the upload has no post-processing settings."""
    settings = (checkpoint.json("processor_config.json") or {}).get("post_processor_config")
    if settings is None:
        return DROPPED_PHRASES
    match settings:
        case {"phrase_grounding": {"banned_grounding_tokens": [*phrases]}} if all(isinstance(p, str) for p in phrases):
            return frozenset(phrases)
    return frozenset()
