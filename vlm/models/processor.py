"""The half of the model contract that needs no torch: images and text to numbers, and back.

The torch half is in ``vlm/models/base.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vlm.types import Detection, EncodedImage, Request, Sampling, TaskResolution

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """Enough to size the KV cache.

    Attributes:
        layers, kv_heads, head_dim: Of the decoder.
        max_positions: Longest sequence that the decoder can hold, prompt included.
        cross_positions: Longest encoder output that cross attention reads; 0 without cross attention.
        prefix_positions: Number of positions that an image takes before the prompt; 0 without such a prefix. They see
            each other in both directions and depend on the image alone, so sequences share their keys and values.
    """

    layers: int
    kv_heads: int
    head_dim: int
    max_positions: int
    cross_positions: int = 0
    prefix_positions: int = 0

    def bytes_per_position(self, element_size: int) -> int:
        """Bytes of keys and values of one position over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_size


class ModelFacts(Protocol):
    """What it takes to prepare a request for a model; every ``VisionLanguageModel`` of ``vlm/models/base.py`` has it.

    Attributes:
        cache: Sizes of the decoder's keys and values, and the longest sequence.
        defaults: What a request gets that does not say otherwise; every field that has a default is set.
        vocabulary: Number of token ids that the decoder can write.
        beam_search: Whether each step chooses one token and nothing else, so that several answers can be searched at
            once.
    """

    cache: CacheSpec
    defaults: Sampling
    vocabulary: int
    beam_search: bool


@dataclass(frozen=True, slots=True)
class ProcessedImage:
    """A preprocessed image.

    Attributes:
        pixels: As in :attr:`Inputs.pixels`.
        size: (width, height) in pixels of the upright original.
    """

    pixels: Bytes
    size: tuple[int, int]


NO_PIXELS: Bytes = np.empty((0, 0, 0), dtype=np.uint8)
"""Stands for the pixels of an image that has yet to be decoded."""

Preprocess = Callable[[EncodedImage], ProcessedImage]
"""Decodes and preprocesses an encoded image, or a part of one. Raises InvalidImage."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """One request as numbers, made by the processor.

    Attributes:
        pixels: Decoded and resized image, uint8 ``[channels, height, width]``; None without one.
            :attr:`Processor.pixel_table` says what its bytes mean.
        prompt_ids: Ids that the decoder reads before it generates, at least one.
        encoder_ids: Ids that a text encoder reads beside the image; empty for models without one.
        task, native_task: The task, by its canonical name and by the model's own.
        resolution: How the task was found.
        image_size: (width, height) of the upright image in pixels; None without one.
        image_tokens, text_tokens: The prompt's size, for usage.
        echo: Number of the last ``prompt_ids`` that the answer's text begins with.
        has_text: True if the answer is text; False if it is geometry alone, so that nothing is streamed.
        ignored: Names of the request's fields that this task does not use.
        chooses_tokens: Whether the model chooses tokens, as sampling and penalties need, and not coordinates alone.
        scored: Whether the answer's objects get scores, which need the tokens' log-probabilities.
        limit: Maximum number of tokens that the task can use, or None; an answer of that length is complete.
        crops: Number of images that the vision encoder sees of this one: 1 unless the model cuts it up.
        values: The numbers for the placeholders in ``prompt_ids``, in order, for models that have such.
        max_reasoning_tokens: Maximum number of ids of reasoning before the answer; None if it answers at once.
        reasoning_end_id: Id after which the answer begins; None if it begins at once.
    """

    pixels: Bytes | None
    prompt_ids: tuple[int, ...]
    encoder_ids: tuple[int, ...]
    task: str
    native_task: str
    resolution: TaskResolution
    image_size: tuple[int, int] | None
    image_tokens: int
    text_tokens: int
    echo: int = 0
    has_text: bool = True
    chooses_tokens: bool = True
    ignored: tuple[str, ...] = ()
    scored: bool = False
    limit: int | None = None
    crops: int = 1
    values: tuple[tuple[float, ...], ...] = ()
    max_reasoning_tokens: int | None = None
    reasoning_end_id: int | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """The meaning of generated ids.

    Attributes:
        text: Without special tokens; None for geometry alone.
        detections: The located objects.
        truncated: Whether the output was cut off or malformed.
        reasoning: The model's reasoning before its answer, into which spans point then; None if it did not reason. It
            is :meth:`Processor.decode` of all ids before :attr:`Inputs.reasoning_end_id`, as it is streamed.
    """

    text: str | None
    detections: tuple[Detection, ...] = ()
    truncated: bool = False
    reasoning: str | None = None


class Processor(Protocol):
    """Images and text to numbers, and back. Several threads use it at once, so it keeps no state of a request."""

    tasks: tuple[str, ...]
    """Canonical names of the tasks that the model offers."""

    @property
    def pixel_table(self) -> Array:
        """What the vision encoder reads for each byte of :attr:`Inputs.pixels`, float32 ``[channels, 256]``.

        ``pixel_table[channel, byte]`` is the byte rescaled and normalised, so it has no unit. It is the same for all
        images: the engine uploads it once, and normalises on the device, where images arrive as bytes.
        """
        ...

    @property
    def preprocess(self) -> Preprocess:
        """Decodes and resizes an encoded image, independently of the task.

        It is an object of its own: small, and pickled for the processes that decode images, which must do without torch
        and tokenizers.
        """
        ...

    def prepare(self, request: Request, preprocess: Preprocess | None = None) -> Inputs:
        """Decode, resize and tokenise.

        Args:
            request: For one task and at most one label.
            preprocess: Used in place of :meth:`preprocess`. The engine's returns what it has cached, or the image's
                size with :data:`NO_PIXELS`: the pixels take their place in the result once they are decoded. So nothing
                but :attr:`Inputs.pixels` may depend on them.

        Raises:
            InvalidRequest: The request cannot be answered; also InvalidImage and UnsupportedTask.
        """
        ...

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Token ids to text; ``special`` keeps the special tokens."""
        ...

    def token_bytes(self, token_id: int, before: Iterable[int]) -> bytes:
        """What a token adds to :meth:`decode` with ``special``, in UTF-8; it may be part of a character.

        Args:
            token_id: Any id that the model can write; b"" for one that has no text.
            before: The ids of the answer before it: some tokenizers put no space before a word that begins the text.
        """
        ...

    def parse(
        self, token_ids: Sequence[int], inputs: Inputs, *, finished: bool, logprobs: Sequence[float] = ()
    ) -> Parsed:
        """Read text and geometry out of generated ids. Never raises, whatever the ids are.

        Args:
            token_ids: Generated ids, end-of-sequence included.
            inputs: What :meth:`prepare` made of the request.
            finished: Whether the model ended the answer itself.
            logprobs: Raw log-probability of each id, for scores; nan for an id that was forced and not chosen; empty
                if they are not known.
        """
        ...


def replace_surrogates(text: str) -> str:
    """``text`` with "?" for each lone surrogate: JSON can spell them, but tokenizers only read valid Unicode."""
    return text.encode("utf-8", "replace").decode("utf-8")
