"""Kosmos-2's processor: an image and a prompt to numbers, and generated token ids to text and boxes.

A sequence is ``<s> <image>``, one id for each image position, ``</image>`` and the prompt, as transformers'
``Kosmos2Processor`` builds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.errors import prompt_too_long
from vlm.image.decode import ImageLimits
from vlm.image.preprocess import ImagePreprocessor
from vlm.models.image_reader import ImageReader
from vlm.models.kosmos2.parsing import read
from vlm.models.kosmos2.tasks import OFFERED, ResolvedTask, resolve_task
from vlm.models.kosmos2.vocabulary import Vocabulary
from vlm.models.processor import Array, Inputs, Parsed, Preprocess
from vlm.models.tasks import missing_image
from vlm.models.vocabulary import token_bytes
from vlm.types import Request

IMAGE_START = 2
"""Position of the image's first vector: after ``<s> <image>``."""


@dataclass(frozen=True, slots=True)
class Kosmos2Processor:
    """Implements :class:`vlm.models.processor.Processor`.

    Attributes:
        images: Resizes images, and has the table that normalises them.
        vocabulary: Text to ids and back.
        image_positions: Number of vectors that the decoder reads for one image.
        max_positions: Maximum length of a sequence, image and answer included.
        limits: What an image may be.
    """

    images: ImagePreprocessor
    vocabulary: Vocabulary
    image_positions: int
    max_positions: int
    limits: ImageLimits = ImageLimits()

    tasks = OFFERED

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, limits: ImageLimits = ImageLimits()) -> Kosmos2Processor:
        """Read settings and tokenizer; what the config leaves open is as in transformers' ``Kosmos2Config``.

        Raises:
            CheckpointError: A file is missing or broken, or its image size is not the vision encoder's.
        """
        config = ConfigReader(checkpoint.config, f"config.json in {checkpoint.folder}")
        images = ImagePreprocessor.from_checkpoint(checkpoint)
        side = config.section("vision_config").integer("image_size", 224)
        images.check_side(side, checkpoint)
        return cls(
            images=images,
            vocabulary=Vocabulary.from_checkpoint(checkpoint),
            image_positions=config.integer("latent_query_num", 64),
            max_positions=config.section("text_config").integer("max_position_embeddings", 2048),
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
        """Find the task, tokenise its prompt, decode and resize the image.

        Raises:
            InvalidRequest: The image or an argument is missing, or the prompt leaves no room for an answer.
            InvalidImage: The image cannot be read.
            UnsupportedTask: The model does not have the task; the message lists those that it has.
        """
        resolved = resolve_task(request)
        if request.encoded is None:
            raise missing_image("Kosmos-2")
        prompt = self._prompt(resolved)
        sequence = self._sequence(prompt)
        image = (preprocess or self.preprocess)(request.encoded)
        return Inputs(
            pixels=image.pixels,
            prompt_ids=sequence,
            encoder_ids=(),
            task=resolved.task,
            native_task=resolved.prompt,
            resolution=resolved.resolution,
            image_size=image.size,
            image_tokens=self.image_positions,
            text_tokens=len(sequence) - self.image_positions,
            echo=len(prompt) if resolved.echo else 0,
            has_text=resolved.task != "detect",  # as for the other models, the answer to "detect" is boxes alone
            ignored=resolved.ignored,
            scored=not self.vocabulary.special_tokens.isdisjoint(prompt),  # a prompt without tags asks for no boxes
        )

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text without tags and cells; ``special`` keeps them."""
        return self.vocabulary.decode(token_ids, special=special)

    def token_bytes(self, token_id: int, before: Iterable[int]) -> bytes:
        """See :class:`~vlm.models.processor.Processor`."""
        return token_bytes(self.vocabulary.tokenizer, token_id, before)

    def parse(
        self, token_ids: Sequence[int], inputs: Inputs, *, finished: bool, logprobs: Sequence[float] = ()
    ) -> Parsed:
        """The text, which begins with the prompt's where that is echoed, and its phrases with their boxes.

        The model did not choose the prompt: a box in it has no score, and a phrase in it does not affect the
        score of its boxes.
        """
        prompt = inputs.prompt_ids[len(inputs.prompt_ids) - inputs.echo :]
        all_logprobs = (*[math.nan] * len(prompt), *logprobs)
        return read((*prompt, *token_ids), self.vocabulary, all_logprobs, finished=finished)

    def _prompt(self, resolved: ResolvedTask) -> tuple[int, ...]:
        before, text, after = resolved.parts
        tagged = self.vocabulary.encode_tagged
        return tagged(before) + self.vocabulary.encode(text) + tagged(after)

    def _sequence(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        vocabulary = self.vocabulary
        # transformers gives image positions the ids after that of <unk>; latents replace the embeddings of these ids.
        image = range(vocabulary.unknown + 1, vocabulary.unknown + 1 + self.image_positions)
        sequence = (vocabulary.bos, vocabulary.tags["<image>"], *image, vocabulary.tags["</image>"], *prompt)
        if len(sequence) >= self.max_positions:
            raise prompt_too_long(len(sequence), self.max_positions)
        return sequence
