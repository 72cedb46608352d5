"""BLIP's processor: an image and the beginning of a caption to numbers, and token ids back to the caption.

A prompt is ``[DEC]`` and the ids of the caption's beginning, as transformers' ``BlipProcessor`` and
``BlipForConditionalGeneration.generate`` put it together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.errors import prompt_too_long
from vlm.image.decode import ImageLimits
from vlm.image.preprocess import ImagePreprocessor
from vlm.models.blip.tasks import OFFERED, resolve_task
from vlm.models.image_reader import ImageReader
from vlm.models.processor import Array, Inputs, Parsed, Preprocess, replace_surrogates
from vlm.models.tasks import missing_image
from vlm.models.vocabulary import token_bytes
from vlm.types import Request


@dataclass(frozen=True, slots=True)
class BlipProcessor:
    """Implements :class:`vlm.models.processor.Processor`.

    Attributes:
        images: Resizes images, and has the table that normalises them.
        tokenizer: Encodes the text of special tokens (``"[SEP]"``) as ordinary characters.
        start: Id of ``[DEC]``, which comes before every caption in place of ``[CLS]``.
        image_positions: Number of vectors that the vision encoder makes of one image, that of the class token included.
        max_positions: Maximum number of a caption's tokens, prefix and ``start`` included.
        limits: What an image may be.
    """

    images: ImagePreprocessor
    tokenizer: Tokenizer
    start: int
    image_positions: int
    max_positions: int
    limits: ImageLimits = ImageLimits()

    tasks = OFFERED

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, limits: ImageLimits = ImageLimits()) -> BlipProcessor:
        """Read settings and tokenizer; what the config leaves open is as in transformers' ``BlipConfig``.

        Raises:
            CheckpointError: A file is missing or broken, or its image size is not the vision encoder's.
        """
        config = ConfigReader(checkpoint.config, f"config.json in {checkpoint.folder}")
        text, vision = config.section("text_config"), config.section("vision_config")
        images = ImagePreprocessor.from_checkpoint(checkpoint)
        side, patch = vision.integer("image_size", 384), vision.integer("patch_size", 16)
        images.check_side(side, checkpoint)
        tokenizer = checkpoint.tokenizer()
        tokenizer.encode_special_tokens = True  # "[SEP]" in a client's text is six characters, not a token
        return cls(
            images=images,
            tokenizer=tokenizer,
            start=text.integer("bos_token_id", 30522),
            image_positions=(side // patch) ** 2 + 1,
            max_positions=text.integer("max_position_embeddings", 512),
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
        """Decode, resize and tokenise; the caption begins with the request's text, if it has one.

        Raises:
            InvalidRequest: There is no image, or the prefix leaves no room for a caption.
            InvalidImage: The image cannot be read.
            UnsupportedTask: The task is not a caption.
        """
        resolved = resolve_task(request)
        if request.encoded is None:
            raise missing_image("BLIP")
        prompt_ids = self._prompt_ids(resolved.prefix)
        image = (preprocess or self.preprocess)(request.encoded)
        return Inputs(
            pixels=image.pixels,
            prompt_ids=prompt_ids,
            encoder_ids=(),
            task="caption",
            native_task="",
            resolution=resolved.resolution,
            image_size=image.size,
            image_tokens=self.image_positions,
            text_tokens=len(prompt_ids),
            echo=len(prompt_ids) - 1,
            ignored=resolved.ignored,
        )

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text, as transformers' ``decode``; ids that the tokenizer does not have give no text."""
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=not special)
        return text

    def token_bytes(self, token_id: int, before: Iterable[int]) -> bytes:
        """See :class:`~vlm.models.processor.Processor`."""
        return token_bytes(self.tokenizer, token_id, before)

    def parse(
        self,
        token_ids: Sequence[int],
        inputs: Inputs,
        *,
        finished: bool,
        logprobs: Sequence[float] = (),  # noqa: ARG002
    ) -> Parsed:
        """The whole caption, prefix included. BLIP's answers hold no geometry, so there are no detections."""
        prefix = inputs.prompt_ids[len(inputs.prompt_ids) - inputs.echo :]
        return Parsed(text=self.decode((*prefix, *token_ids)).strip(), truncated=not finished)

    def _prompt_ids(self, prefix: str) -> tuple[int, ...]:
        if not prefix:  # as in most requests
            return (self.start,)
        ids = self.tokenizer.encode(replace_surrogates(prefix)).ids  # [CLS] .. [SEP]
        prompt = (self.start, *ids[1:-1])
        if len(prompt) >= self.max_positions:
            raise prompt_too_long(len(prompt), self.max_positions)
        return prompt
