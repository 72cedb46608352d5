"""BLIP's processor: an image and the beginning of a caption to numbers, and token ids back to the caption.

Owns what a BLIP prompt is: the first words of the caption, verbatim, or nothing. Knows no tensors and no engine.
Source: the model card of Salesforce/blip-image-captioning-large and transformers' BlipProcessor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.image.decode import ImageLimits, decode
from vlm.image.preprocess import ImagePreprocessor
from vlm.models.processor import Inputs, Parsed, Preprocess, ProcessedImage
from vlm.types import Request, Task, TaskResolution

OFFERED: tuple[str, ...] = ("caption",)


@dataclass(frozen=True, slots=True)
class _Asked:
    prefix: str
    resolution: TaskResolution
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BlipProcessor:
    """Implements :class:`vlm.models.processor.Processor`.

    Attributes:
        images: Makes the pixels.
        tokenizer: Never reads a special token out of a client's text.
        start: Id that stands before every caption in place of ``[CLS]``.
        image_positions: What the vision encoder makes of one image, its class position included.
        max_positions: Longest caption in tokens, prefix and ``start`` included.
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
        """Read settings and tokenizer, with the defaults of transformers' BlipConfig where the config is silent.

        Raises:
            CheckpointError: A file is missing or broken, or the image size is not the vision encoder's.
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

    def preprocess(self, image: bytes) -> ProcessedImage:
        """Decode and resize. Raises InvalidImage."""
        decoded = decode(image, self.limits)
        return ProcessedImage(self.images.pixels(decoded), decoded.size)

    def prepare(self, request: Request, preprocess: Preprocess | None = None) -> Inputs:
        """Decode, resize and tokenise; the caption begins with the request's text, if it has one.

        Raises:
            InvalidRequest: No image, or a prefix that leaves no room for a caption.
            InvalidImage: The image cannot be read.
            UnsupportedTask: Anything but a caption.
        """
        asked = _understand(request)
        if request.image is None:
            raise InvalidRequest("BLIP needs an image.", param="image", code="invalid_value")
        prompt_ids = self._prompt_ids(asked.prefix)
        image = (preprocess or self.preprocess)(request.image)
        return Inputs(
            pixels=image.pixels,
            prompt_ids=prompt_ids,
            encoder_ids=(),
            task="caption",
            native_task="",
            resolution=asked.resolution,
            image_size=image.size,
            image_tokens=self.image_positions,
            text_tokens=len(prompt_ids),
            echo=len(prompt_ids) - 1,
            ignored=asked.ignored,
        )

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Ids to text as transformers' ``decode`` does it; ids outside the tokenizer have no text."""
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=not special)
        return text

    def parse(
        self,
        token_ids: Sequence[int],
        inputs: Inputs,
        *,
        finished: bool,
        logprobs: Sequence[float] = (),  # noqa: ARG002
    ) -> Parsed:
        """The whole caption, prefix included: BLIP knows no places."""
        prefix = inputs.prompt_ids[len(inputs.prompt_ids) - inputs.echo :]
        return Parsed(text=self.decode((*prefix, *token_ids)).strip(), truncated=not finished)

    def _prompt_ids(self, prefix: str) -> tuple[int, ...]:
        text = prefix.encode("utf-8", "replace").decode("utf-8")  # JSON can hold half of a surrogate pair
        ids = self.tokenizer.encode(text).ids  # [CLS] .. [SEP]
        prompt = (self.start, *ids[1:-1])
        if len(prompt) >= self.max_positions:
            raise InvalidRequest(
                f"The caption's beginning has {len(prompt)} tokens; the model holds {self.max_positions}, "
                "the rest of the caption included.",
                param="prompt",
                code="context_length_exceeded",
            )
        return prompt


def _understand(request: Request) -> _Asked:
    if request.task is None:
        return _Asked(request.prompt, "native" if request.prompt.strip() else "default")
    if request.task.name not in OFFERED:
        raise UnsupportedTask(
            f"BLIP has no task {request.task.name!r}; it offers: {', '.join(OFFERED)}.",
            param="task",
            code="unsupported_task",
        )
    if request.task.text is None:
        return _Asked(request.prompt, "task", _unused(request.task))
    dropped = ("prompt",) if request.prompt.strip() else ()
    return _Asked(request.task.text, "task", dropped + _unused(request.task))


def _unused(task: Task) -> tuple[str, ...]:
    given = {
        "labels": bool(task.labels),
        "region": task.region is not None,
        "length": task.length != "normal",
        "threshold": task.threshold is not None,
        "max_objects": task.max_objects is not None,
        "reasoning": task.reasoning,
        "references": bool(task.references),
    }
    return tuple(f"task.{name}" for name, there in given.items() if there)
