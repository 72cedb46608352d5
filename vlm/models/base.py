"""The whole contract between a model and the engine, on one page.

The engine knows this module and nothing about any concrete model: it is handed one. A model family is a folder beside
this file that offers a :class:`Processor` (numpy and PIL: images and words to numbers and back) and a
:class:`VisionLanguageModel` (torch: numbers to numbers). ``docs/architecture.md`` follows one request through both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vlm.checkpoint.files import Checkpoint
from vlm.layers.attention import AttentionContext
from vlm.models.processor import Inputs, ModelFacts, Processor


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


class VisionLanguageModel(ModelFacts, Protocol):
    """Numbers to numbers, for a whole batch at once."""

    eos_token_ids: frozenset[int]
    """Ids that end an answer."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of embeddings and KV cache."""
        ...

    def encode_images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Encode images, each as in :attr:`Inputs.pixels`, to features ``[tokens, width]`` each.

        They depend on nothing but the image, so that the engine may keep them for its next question.
        """
        ...

    def embed(
        self, inputs: Sequence[Inputs], features: Sequence[Tensor], generated: Sequence[Sequence[int]]
    ) -> Prompts:
        """Encode prompts; a prefix (:meth:`embed_prefix`) is not part of them.

        Args:
            inputs: One a row.
            features: What :meth:`see` made of each row's image, ``[tokens, width]``; empty for models with a prefix.
            generated: Ids that a preempted sequence already has, after its prompt.
        """
        ...

    def embed_prefix(self, features: Sequence[Tensor]) -> Tensor:
        """What stands before the prompt of a sequence with an image, ``[batch, prefix positions, width]``."""
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
        """Nothing: the image is part of the prompt, or of what cross attention reads."""
        raise NotImplementedError(f"{len(features)} images, but the model has no prefix")

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
