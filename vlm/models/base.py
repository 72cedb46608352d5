"""The torch half of the contract between a model and the engine; the other half is ``vlm/models/processor.py``.

A model family is a folder beside this file that offers a :class:`~vlm.models.processor.Processor` (images and text to
numbers and back, with numpy and PIL) and a :class:`VisionLanguageModel` (numbers to numbers, with torch). The engine
imports these two modules and no family. ``docs/architecture.md`` follows one request through both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

import torch
from torch import Tensor, nn

from vlm.calibration import NOT_CALIBRATED, Calibration
from vlm.checkpoint.files import Checkpoint
from vlm.layers.attention import AttentionContext
from vlm.models.processor import Bytes, Inputs, ModelFacts, Processor


@dataclass(frozen=True, slots=True)
class Prompts:
    """A batch of prompts as embeddings, right-padded.

    Attributes:
        embeddings: ``[batch, longest, width]``, without positions.
        lengths: Number of real positions in each row.
        encoded: Encoder output for cross attention ``[batch, longest, encoder width]``, or None.
        encoded_lengths: Number of real positions in each row of ``encoded``.
    """

    embeddings: Tensor
    lengths: tuple[int, ...]
    encoded: Tensor | None = None
    encoded_lengths: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampled:
    """``tokens`` int64 ``[batch]``, and their raw ``logprobs`` float32 ``[batch]`` or None if no row wants them."""

    tokens: Tensor
    logprobs: Tensor | None


Sample = Callable[[Tensor], Sampled]
"""Chooses one token a row from float32 logits ``[batch, vocabulary]``; the engine passes its sampler to ``decode``."""


@dataclass(frozen=True, slots=True)
class Step:
    """The choice of one step, as in Sampled, and the ``embeddings`` ``[batch, width]`` that the next step reads."""

    tokens: Tensor
    logprobs: Tensor | None
    embeddings: Tensor


class Row(Protocol):
    """One row of a step: the request's inputs, and the ids generated so far."""

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
        """The weights' device."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, and so of embeddings and KV cache."""
        ...

    def encode_images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Encode images to features ``[tokens, width]`` each.

        ``pixels`` are :func:`normalised` and have the shape of :attr:`Inputs.pixels`, on the model's device and in its
        dtype.

        Features depend on the image alone, so the engine may keep them for the next question about it.
        """
        ...

    def embed(
        self, inputs: Sequence[Inputs], features: Sequence[Tensor], generated: Sequence[Sequence[int]]
    ) -> Prompts:
        """Embed prompts, without the prefix of :meth:`embed_prefix`.

        Args:
            inputs: One a row.
            features: :meth:`encode_images` of each row's image; empty for models with a prefix.
            generated: For each row the ids after its prompt, which a sequence has after a preemption.
        """
        ...

    def embed_prefix(self, features: Sequence[Tensor]) -> Tensor:
        """Embed the positions before the prompt of a sequence with an image, ``[batch, prefix positions, width]``."""
        ...

    def cross_keys_values(self, layer: int, encoded: Tensor) -> Tensor:
        """Cross-attention keys and values of one layer, ``[batch, positions, 2 * heads, head_dim]``: keys come first.

        ``encoded`` is :attr:`Prompts.encoded`.
        """
        ...

    def forward(self, embeddings: Tensor, attention: AttentionContext) -> Tensor:
        """Hidden states ``[batch, positions, width]`` of ``embeddings`` of that shape.

        Keys and values are kept by ``attention``.
        """
        ...

    def decode(self, hidden: Tensor, rows: Sequence[Row], sample: Sample) -> Step:
        """Choose the next token of each row from ``hidden`` ``[batch, width]`` and embed it.

        A model whose steps do not all choose a token finds in ``rows`` which kind of step each of them is at.
        """
        ...


class TokenModel(nn.Module):
    """What models have in common that choose one token at each step: ``decode`` is logits, sample, embed."""

    beam_search = True

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, vocabulary]``."""
        raise NotImplementedError

    def embed_prefix(self, features: Sequence[Tensor]) -> Tensor:
        """Not supported: the image is part of the prompt, or of what cross attention reads."""
        raise NotImplementedError(f"{len(features)} images, but the model has no prefix")

    def cross_keys_values(self, layer: int, encoded: Tensor) -> Tensor:
        """Not supported: the decoder has no cross attention."""
        raise NotImplementedError(f"layer {layer} has no cross attention")

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Ids of any shape to embeddings of that shape plus ``[width]``."""
        raise NotImplementedError

    def finish(self, checkpoint: Checkpoint) -> None:
        """By default, reads no other files; see :class:`~vlm.models.family.ModelModule`."""

    @property
    def device(self) -> torch.device:
        """The weights' device."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def decode(self, hidden: Tensor, rows: Sequence[Row], sample: Sample) -> Step:  # noqa: ARG002  the protocol's
        """Choose the next token of each row and embed it; see :class:`VisionLanguageModel`."""
        sampled = sample(self.logits(hidden))
        return Step(sampled.tokens, sampled.logprobs, self.embed_tokens(sampled.tokens))


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and its processor, as :func:`vlm.loading.load` returns them.

    Attributes:
        model, processor: The two halves of the contract.
        family: Folder of ``vlm.models`` that serves the checkpoint.
        source: Folder or hub id of the checkpoint, as given.
        revision: Commit of the hub repository; None for a folder.
        calibration: How often its answers are right.
    """

    model: VisionLanguageModel
    processor: Processor
    family: str
    source: str
    revision: str | None
    calibration: Calibration = NOT_CALIBRATED


def pixel_table(model: VisionLanguageModel, processor: Processor) -> Tensor:
    """The processor's table for :func:`normalised`, ``[channels, 256]`` on the model's device and in its dtype.

    Make it once for a model. To round the table rounds every pixel, with the same result.
    """
    return torch.from_numpy(processor.pixel_table).to(model.device, model.dtype)


def normalised(pixels: Bytes, table: Tensor) -> Tensor:
    """Upload an image as bytes, and look up what the vision encoder reads for them.

    Args:
        pixels: uint8 ``[..., channels, height, width]``, as in :attr:`Inputs.pixels`.
        table: :func:`pixel_table`.

    Returns:
        ``[..., channels, height, width]``, on the table's device and in its dtype.
    """
    uploaded = torch.from_numpy(pixels).to(table.device)
    return _looked_up_at_once(uploaded, table) if table.is_cuda else _looked_up_by_plane(uploaded, table)


def _looked_up_at_once(uploaded: Tensor, table: Tensor) -> Tensor:
    """Few operations: on a GPU, starting one takes longer than a plane does."""
    first = torch.arange(0, table.numel(), table.shape[1], dtype=torch.int, device=table.device)  # of each channel
    return table.flatten()[uploaded.int() + first[:, None, None]]


def _looked_up_by_plane(uploaded: Tensor, table: Tensor) -> Tensor:
    """Plane by plane, so that on a CPU the indices, which are wider than bytes, stay in its cache."""
    found = torch.empty(uploaded.shape, dtype=table.dtype, device=table.device)
    planes, targets = (one.flatten(-2).flatten(0, -2) for one in (uploaded, found))
    for plane, values, target in zip(planes, cycle(table), targets, strict=False):
        torch.index_select(values, 0, plane.int(), out=target)
    return found
