"""Kosmos-2's processor: an image and a prompt to numbers, and generated token ids to text and boxes.

Owns the layout of a sequence: ``<s> <image>``, one id for each image position, ``</image>``, the prompt. Knows no
tensors and no engine. Source: transformers' Kosmos2Processor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.errors import InvalidRequest
from vlm.image.decode import ImageLimits, decode
from vlm.image.preprocess import ImagePreprocessor
from vlm.models.kosmos2.parsing import read
from vlm.models.kosmos2.tasks import OFFERED, ResolvedTask, resolve_task
from vlm.models.kosmos2.vocabulary import Vocabulary
from vlm.models.processor import Inputs, Parsed, Preprocess, ProcessedImage
from vlm.types import Request

IMAGE_START = 2
"""The image's vectors stand after ``<s> <image>``."""


@dataclass(frozen=True, slots=True)
class Kosmos2Processor:
    """Implements :class:`vlm.models.processor.Processor`.

    Attributes:
        images: Makes the pixels.
        vocabulary: Text to ids and back.
        image_positions: How many vectors the decoder reads of one image.
        max_positions: Longest sequence, image and answer included.
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
        """Read settings and tokenizer, with the defaults of transformers' Kosmos2Config where the config is silent.

        Raises:
            CheckpointError: A file is missing or broken, or the image size is not the vision encoder's.
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

    def preprocess(self, image: bytes) -> ProcessedImage:
        """Decode and resize. Raises InvalidImage."""
        decoded = decode(image, self.limits)
        return ProcessedImage(self.images.pixels(decoded), decoded.size)

    def prepare(self, request: Request, preprocess: Preprocess | None = None) -> Inputs:
        """Find the task, tokenise its prompt, decode and resize the image.

        Raises:
            InvalidRequest: No image, a missing argument, or a prompt that leaves no room for an answer.
            InvalidImage: The image cannot be read.
            UnsupportedTask: The task is not offered; the message lists those that are.
        """
        asked = resolve_task(request)
        if request.image is None:
            raise InvalidRequest("Kosmos-2 needs an image.", param="image", code="invalid_value")
        prompt = self._prompt(asked)
        sequence = self._sequence(prompt)
        image = (preprocess or self.preprocess)(request.image)
        return Inputs(
            pixels=image.pixels,
            prompt_ids=sequence,
            encoder_ids=(),
            task=asked.task,
            native_task=asked.prompt,
            resolution=asked.resolution,
            image_size=image.size,
            image_tokens=self.image_positions,
            text_tokens=len(sequence) - self.image_positions,
            echo=len(prompt) if asked.echoes else 0,
            has_text=asked.task != "detect",  # as elsewhere, the answer to "detect" is its boxes
            ignored=asked.ignored,
            scored=not self.vocabulary.marks.isdisjoint(prompt),  # without a tag, no boxes are asked for
        )

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to clean text; ``special`` keeps tags and cells."""
        return self.vocabulary.decode(token_ids, special=special)

    def parse(
        self, token_ids: Sequence[int], inputs: Inputs, *, finished: bool, logprobs: Sequence[float] = ()
    ) -> Parsed:
        """The text, prompt included where it is echoed, and its phrases with their boxes.

        What stands in the prompt was not chosen by the model: a box there has no score, and a phrase no part in one.
        """
        prompt = inputs.prompt_ids[len(inputs.prompt_ids) - inputs.echo :]
        known = (*[math.nan] * len(prompt), *logprobs)
        return read((*prompt, *token_ids), self.vocabulary, known, finished=finished)

    def _prompt(self, asked: ResolvedTask) -> tuple[int, ...]:
        before, words, after = asked.parts
        tagged = self.vocabulary.encode_tagged
        return tagged(before) + self.vocabulary.encode(words) + tagged(after)

    def _sequence(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        known = self.vocabulary
        # The ids of the image's places are those after <unk>'s: words, but the model never sees their vectors.
        image = range(known.unknown + 1, known.unknown + 1 + self.image_positions)
        sequence = (known.bos, known.tags["<image>"], *image, known.tags["</image>"], *prompt)
        if len(sequence) >= self.max_positions:
            raise InvalidRequest(
                f"Prompt and image have {len(sequence)} tokens; the model holds {self.max_positions}, "
                "the answer included.",
                param="prompt",
                code="context_length_exceeded",
            )
        return sequence
