"""The whole contract between a model and the engine, on one page.

The engine knows this module and nothing about any concrete model: it is handed one. A model family is a folder beside
this file that offers a :class:`Processor` (numpy and PIL: pictures and words to numbers and back) and a
:class:`VisionLanguageModel` (torch: numbers to numbers). ``docs/architecture.md`` follows one request through both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vlm.checkpoint import Checkpoint
from vlm.layers.attention import AttentionContext
from vlm.types import Detection, Request, Sampling, TaskResolution

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A preprocessed picture.

    Attributes:
        pixels: As in :attr:`Inputs.pixels`.
        size: (width, height) in pixels of the upright original.
    """

    pixels: Array
    size: tuple[int, int]


Look = Callable[[bytes], Picture]
"""Decodes and preprocesses an encoded picture. Raises InvalidImage."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """One request as numbers, made by the processor in a worker thread.

    Attributes:
        pixels: Preprocessed picture as :meth:`VisionLanguageModel.see` wants it, float32
            ``[channels, height, width]`` or ``[crops, channels, height, width]``; None without one.
        prompt_ids: What the decoder reads before its first own token (at least one id).
        encoder_ids: What a text encoder reads beside the picture; empty where there is none.
        task, native_task: What was understood, by its canonical and by the model's own name.
        resolution: How it was found.
        image_size: (width, height) of the upright picture in pixels.
        image_tokens, text_tokens: The prompt's size, for usage.
        echo: How many of the last ``prompt_ids`` the answer's text begins with.
        words: True where the answer is text; False where it is geometry alone, so nothing is streamed.
        ignored: Names of request fields that this task does not use.
        scored: True where the answer's objects get scores, which need the tokens' log-probabilities.
        limit: Most tokens that the task can use, or None; an answer that has so many has ended by itself.
        values: Numbers that stand in ``prompt_ids`` where the model has placeholders for them, in order.
        thinking: Most ids that the model may think before it answers; None where it answers at once.
        text_after: Id after which the answer's text begins, or None: at once.
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
    words: bool = True
    ignored: tuple[str, ...] = ()
    scored: bool = False
    limit: int | None = None
    values: tuple[tuple[float, ...], ...] = ()
    thinking: int | None = None
    text_after: int | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What tokens mean: clean text (None for geometry alone), detections, and whether output was cut or malformed.

    ``reasoning`` is what the model thought before it answered, None where it did not; spans then point into it. It is
    what :meth:`Processor.decode` makes of all ids before :attr:`Inputs.text_after`, for so it is streamed.
    """

    text: str | None
    detections: tuple[Detection, ...] = ()
    truncated: bool = False
    reasoning: str | None = None


class Processor(Protocol):
    """Pictures and words to numbers, and back. Used from several threads at once; keeps no state of a request."""

    tasks: tuple[str, ...]
    """Canonical names of the tasks offered."""

    def look(self, image: bytes) -> Picture:
        """Decode and resize, whatever is asked about the picture. Raises InvalidImage."""
        ...

    def prepare(self, request: Request, look: Look | None = None) -> Inputs:
        """Decode, resize and tokenise. Raises InvalidRequest, InvalidImage or UnsupportedTask.

        ``look`` stands in for :meth:`look`, to remember what it made of a picture.
        """
        ...

    def decode(self, token_ids: Sequence[int], *, special: bool = False) -> str:
        """Token ids to text; ``special`` keeps the special tokens."""
        ...

    def ground(
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


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """Enough to size the KV cache.

    Attributes:
        layers, kv_heads, head_dim: Of the decoder.
        max_positions: Longest sequence that the decoder can hold, prompt included.
        cross_positions: Longest encoder output that cross attention reads; 0 without cross attention.
        prefix_positions: Positions that a picture takes before the prompt, of which each sees all and which depend on
            nothing but the picture, so that sequences share their keys and values; 0 without such a prefix.
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


@dataclass(frozen=True, slots=True)
class Prompts:
    """A batch of prompts as embeddings, right-padded.

    Attributes:
        embeddings: ``[batch, longest, width]``, without positions.
        lengths: Real positions in each row.
        encoded: Encoder output for cross attention ``[batch, longest, encoder width]``, or None.
        encoded_lengths: Real positions in each row of ``encoded``.
    """

    embeddings: Tensor
    lengths: tuple[int, ...]
    encoded: Tensor | None = None
    encoded_lengths: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampled:
    """Chosen ``tokens`` int64 ``[batch]`` and their raw ``logprobs`` float32 ``[batch]`` (None where nobody asked)."""

    tokens: Tensor
    logprobs: Tensor | None


Sample = Callable[[Tensor], Sampled]
"""Chooses one token a row from float32 logits ``[batch, vocabulary]``; the engine's sampler, handed to ``decode``."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one decode step chose, and the embeddings ``[batch, width]`` that the next one reads."""

    tokens: Tensor
    logprobs: Tensor | None
    embeddings: Tensor


class Row(Protocol):
    """One row of a step: what was asked, and the ids written so far."""

    @property
    def inputs(self) -> Inputs: ...
    @property
    def generated(self) -> Sequence[int]: ...


class VisionLanguageModel(Protocol):
    """Numbers to numbers, for a whole batch at once."""

    cache: CacheSpec
    defaults: Sampling
    """Every field set: what a request gets that says nothing."""
    eos_token_ids: frozenset[int]
    vocabulary: int
    beam_search: bool
    """Whether each of its steps chooses a token and nothing else, so that several answers can be searched at once."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of embeddings and KV cache."""
        ...

    def see(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Encode pictures, each as in :attr:`Inputs.pixels`, to features ``[tokens, width]`` each.

        They depend on nothing but the picture, so that the engine may keep them for its next question.
        """
        ...

    def embed(
        self, inputs: Sequence[Inputs], features: Sequence[Tensor], generated: Sequence[Sequence[int]]
    ) -> Prompts:
        """Encode prompts; a prefix (:meth:`embed_prefix`) is not part of them.

        Args:
            inputs: One a row.
            features: What :meth:`see` made of each row's picture, ``[tokens, width]``; empty for models with a prefix.
            generated: Ids that a preempted sequence already has, after its prompt.
        """
        ...

    def embed_prefix(self, features: Sequence[Tensor]) -> Tensor:
        """What stands before the prompt of a sequence with a picture, ``[batch, prefix positions, width]``."""
        ...

    def cross_keys_values(self, layer: int, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-attention keys and values ``[batch, heads, positions, head_dim]`` of one layer."""
        ...

    def forward(self, embeddings: Tensor, attention: AttentionContext) -> Tensor:
        """Hidden states ``[batch, positions, width]``; keys and values go through ``attention``."""
        ...

    def decode(self, hidden: Tensor, rows: Sequence[Row], sample: Sample) -> Step:
        """Choose the next token of each row from ``hidden`` ``[batch, width]`` and embed it.

        A model whose steps are not all choices of a token looks at ``rows`` for what each one is at.
        """
        ...


class TokenModel(nn.Module):
    """What models have in common whose every step chooses one token: ``decode`` is logits, sample, embed."""

    beam_search = True

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to ``[batch, vocabulary]``."""
        raise NotImplementedError

    def embed_prefix(self, features: Sequence[Tensor]) -> Tensor:
        """Nothing: the picture is part of the prompt, or of what cross attention reads."""
        raise NotImplementedError(f"{len(features)} pictures, but the model has no prefix")

    def cross_keys_values(self, layer: int, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing: the decoder has no cross attention."""
        raise NotImplementedError(f"layer {layer} has no cross attention")

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Ids of any shape to embeddings of that shape plus ``[width]``."""
        raise NotImplementedError

    def finish(self, checkpoint: Checkpoint) -> None:
        """Nothing more to read; see :class:`~vlm.models.family.ModelModule`."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def decode(self, hidden: Tensor, rows: Sequence[Row], sample: Sample) -> Step:  # noqa: ARG002  the protocol's
        """Choose the next token of each row and embed it; see :class:`VisionLanguageModel`."""
        sampled = sample(self.logits(hidden).float())
        return Step(sampled.tokens, sampled.logprobs, self.embed_tokens(sampled.tokens))


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, its processor, and where they came from."""

    model: VisionLanguageModel
    processor: Processor
    family: str
    source: str
    revision: str | None
