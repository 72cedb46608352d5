"""The half of the model contract that needs no torch: images and words to numbers, and back.

A model family offers a :class:`Processor` beside the torch half of the contract in ``vlm/models/base.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vlm.types import Detection, Request, Sampling, TaskResolution

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """Enough to size the KV cache.

    Attributes:
        layers, kv_heads, head_dim: Of the decoder.
        max_positions: Longest sequence that the decoder can hold, prompt included.
        cross_positions: Longest encoder output that cross attention reads; 0 without cross attention.
        prefix_positions: Positions that an image takes before the prompt, of which each sees all and which depend on
            nothing but the image, so that sequences share their keys and values; 0 without such a prefix.
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

    pixels: Array
    size: tuple[int, int]


Preprocess = Callable[[bytes], ProcessedImage]
"""Decodes and preprocesses an encoded image. Raises InvalidImage."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """One request as numbers, made by the processor in a worker thread.

    Attributes:
        pixels: Preprocessed image as :meth:`VisionLanguageModel.see` wants it, float32
            ``[channels, height, width]`` or ``[crops, channels, height, width]``; None without one.
        prompt_ids: What the decoder reads before its first own token (at least one id).
        encoder_ids: What a text encoder reads beside the image; empty where there is none.
        task, native_task: What was understood, by its canonical and by the model's own name.
        resolution: How it was found.
        image_size: (width, height) of the upright image in pixels.
        image_tokens, text_tokens: The prompt's size, for usage.
        echo: How many of the last ``prompt_ids`` the answer's text begins with.
        has_text: True where the answer is text; False where it is geometry alone, so nothing is streamed.
        ignored: Names of request fields that this task does not use.
        scored: True where the answer's objects get scores, which need the tokens' log-probabilities.
        limit: Most tokens that the task can use, or None; an answer that has so many has ended by itself.
        values: Numbers that stand in ``prompt_ids`` where the model has placeholders for them, in order.
        max_reasoning_tokens: Most ids that the model may think before it answers; None where it answers at once.
        reasoning_end_id: Id after which the answer's text begins, or None: at once.
    """

    pixels: Array | None
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
    ignored: tuple[str, ...] = ()
    scored: bool = False
    limit: int | None = None
    values: tuple[tuple[float, ...], ...] = ()
    max_reasoning_tokens: int | None = None
    reasoning_end_id: int | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What tokens mean: clean text (None for geometry alone), detections, and whether output was cut or malformed.

    ``reasoning`` is what the model thought before it answered, None where it did not; spans then point into it. It is
    what :meth:`Processor.decode` makes of all ids before :attr:`Inputs.reasoning_end_id`, for so it is streamed.
    """

    text: str | None
    detections: tuple[Detection, ...] = ()
    truncated: bool = False
    reasoning: str | None = None


class Processor(Protocol):
    """Images and words to numbers, and back. Used from several threads at once; keeps no state of a request."""

    tasks: tuple[str, ...]
    """Canonical names of the tasks offered."""

    def preprocess(self, image: bytes) -> ProcessedImage:
        """Decode and resize, whatever is asked about the image. Raises InvalidImage."""
        ...

    def prepare(self, request: Request, preprocess: Preprocess | None = None) -> Inputs:
        """Decode, resize and tokenise. Raises InvalidRequest, InvalidImage or UnsupportedTask.

        ``look`` stands in for :meth:`look`, to remember what it made of an image.
        """
        ...

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Token ids to text; ``special`` keeps the special tokens."""
        ...

    def parse(
        self, token_ids: Sequence[int], inputs: Inputs, *, finished: bool, logprobs: Sequence[float] = ()
    ) -> Parsed:
        """Read the geometry out of generated ids. Never raises on output.

        Args:
            token_ids: Generated ids, end-of-sequence included.
            inputs: What :meth:`prepare` made of the request.
            finished: The model ended by itself.
            logprobs: Raw log-probability of each id, for scores; nan for one that was forced, so that nobody chose it;
                empty where they are not known.
        """
        ...


def replace_surrogates(text: str) -> str:
    """``text`` with "?" for each lone surrogate: JSON can spell them, but tokenizers only read valid Unicode."""
    return text.encode("utf-8", "replace").decode("utf-8")
