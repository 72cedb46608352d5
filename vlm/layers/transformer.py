"""One transformer for every decoder and encoder, configured by a spec.

Vision towers use :class:`Transformer`; language models whose positions are added to the input use
:class:`TextTransformer`. A model's ``language.py`` is a spec plus the names of its weights. If a new family needs what
the spec lacks, add a flag here rather than a second transformer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlm.layers import head
from vlm.layers.attention import AttentionContext, CrossAttention, SelfAttention
from vlm.layers.modules import LayerNorm, Linear
from vlm.layers.rope import Rotary, Rotation

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
ACTIVATIONS: tuple[Activation, ...] = ("gelu", "gelu_tanh", "quick_gelu")


@dataclass(frozen=True, slots=True)
class TransformerSpec:
    """The configuration of a transformer.

    Attributes:
        layers, width, heads: Its size; ``width`` is a multiple of ``heads``.
        mlp_width: Hidden width of the feed-forward part.
        norm: "pre" normalises before each part; "post" after its residual sum, as BERT and BART do; "parallel" has one
            norm whose output both attention and MLP read, as Phi does.
        activation: "gelu" is the exact one (erf).
        eps: Of every LayerNorm.
        cross_width: Width of the encoder output that each layer attends to, or None.
        embedding_norm, final_norm: Whether there is a LayerNorm on the input, and on the output.
        inner_norm: Whether each part has a further LayerNorm before its last matrix (sub-LN).
        kv_heads: Number of heads of keys and values if it is less than ``heads``, or None.
        rotary: Rotary positions, or None if positions are added to the input.
    """

    layers: int
    width: int
    heads: int
    mlp_width: int
    norm: Literal["pre", "post", "parallel"]
    activation: Activation = "gelu"
    eps: float = 1e-5
    cross_width: int | None = None
    embedding_norm: bool = False
    final_norm: bool = False
    inner_norm: bool = False
    kv_heads: int | None = None
    rotary: Rotary | None = None


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Apply the activation of that name."""
    match activation:
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "quick_gelu":
            return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: Activation,
        inner_norm: LayerNorm | None = None,
        out_width: int | None = None,
    ) -> None:
        """``inner_norm`` comes before the second layer, on ``hidden``; ``out_width`` is ``width`` by default."""
        super().__init__()
        self.up = Linear(width, hidden)
        self.inner_norm = inner_norm
        self.down = Linear(hidden, width if out_width is None else out_width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``[..., width]`` to ``[..., out_width]``."""
        return self.down(self._hidden(x))

    def logits(self, x: Tensor) -> Tensor:
        """As a head: ``[batch, width]`` to float32 ``[batch, out_width]``."""
        return head.logits(self._hidden(x), self.down.weight, self.down.bias)

    def _hidden(self, x: Tensor) -> Tensor:
        hidden = activate(self.up(x), self.activation)
        return hidden if self.inner_norm is None else self.inner_norm(hidden)


class Layer(nn.Module):
    """Self attention, cross attention where the spec has it, and an MLP, each with its norm and residual."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.norm = spec.norm
        self.attention = SelfAttention(spec.width, spec.heads, _inner_norm(spec, spec.width), spec.kv_heads)
        self.attention_norm = LayerNorm(spec.width, spec.eps)
        self.cross: CrossAttention | None = None
        if spec.cross_width is not None:
            self.cross = CrossAttention(spec.width, spec.heads, spec.cross_width)
            self.cross_norm = LayerNorm(spec.width, spec.eps)
        self.mlp = Mlp(spec.width, spec.mlp_width, spec.activation, _inner_norm(spec, spec.mlp_width))
        if spec.norm != "parallel":
            self.mlp_norm = LayerNorm(spec.width, spec.eps)

    def forward(self, x: Tensor, layer: int, context: AttentionContext, rotation: Rotation | None = None) -> Tensor:
        """``[batch, queries, width]`` in and out."""
        match self.norm:
            case "pre":
                return self._pre_norm(x, layer, context, rotation)
            case "post":
                return self._post_norm(x, layer, context, rotation)
            case "parallel":
                return self._parallel(x, layer, context, rotation)

    def _pre_norm(self, x: Tensor, layer: int, context: AttentionContext, rotation: Rotation | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), layer, context, rotation)
        if self.cross is not None:
            x = x + self.cross(self.cross_norm(x), layer, context)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out

    def _post_norm(self, x: Tensor, layer: int, context: AttentionContext, rotation: Rotation | None) -> Tensor:
        x = self.attention_norm(x + self.attention(x, layer, context, rotation))
        if self.cross is not None:
            x = self.cross_norm(x + self.cross(x, layer, context))
        out: Tensor = self.mlp_norm(x + self.mlp(x))
        return out

    def _parallel(self, x: Tensor, layer: int, context: AttentionContext, rotation: Rotation | None) -> Tensor:
        normed = self.attention_norm(x)
        out: Tensor = x + self.attention(normed, layer, context, rotation) + self.mlp(normed)
        return out


def _inner_norm(spec: TransformerSpec, width: int) -> LayerNorm | None:
    return LayerNorm(width, spec.eps) if spec.inner_norm else None


class Transformer(nn.Module):
    """A stack of layers on embeddings."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embedding_norm = LayerNorm(spec.width, spec.eps) if spec.embedding_norm else None
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))
        self.final_norm = LayerNorm(spec.width, spec.eps) if spec.final_norm else None

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """``[batch, queries, width]`` in and out."""
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        rotary = self.spec.rotary
        rotation = None if rotary is None else rotary.rotation(context.positions)
        for index, layer in enumerate(self.layers):
            x = layer(x, index, context, rotation)
        if self.final_norm is not None:
            x = self.final_norm(x)
        return x

    def cross_keys_values(self, layer: int, encoded: Tensor) -> Tensor:
        """Cross-attention keys and values of one layer, ``[batch, positions, 2 * heads, head_dim]``."""
        block = self.layers[layer]
        assert isinstance(block, Layer)
        assert block.cross is not None, "the spec has no cross attention"
        return block.cross.keys_values(encoded)


class LearnedPositions(nn.Module):
    """A learned embedding for each position; the first ``offset`` rows are not used, as in BART."""

    def __init__(self, positions: int, width: int, offset: int = 0) -> None:
        super().__init__()
        self.offset = offset
        self.weight = nn.Parameter(torch.empty(positions + offset, width))

    def forward(self, positions: Tensor) -> Tensor:
        """int64 ``[batch, queries]`` to ``[batch, queries, width]``."""
        return F.embedding(positions + self.offset, self.weight)


class SinusoidalPositions(nn.Module):
    """Sines, then cosines, of the position at falling frequencies (fairseq's layout); nothing is learned."""

    def __init__(self, positions: int, width: int, offset: int = 0) -> None:
        super().__init__()
        self.shape = (positions, width)
        self.offset = offset
        # Not a buffer: models are built without storage, and only what a checkpoint holds is filled in.
        self._table: Tensor | None = None

    def forward(self, positions: Tensor) -> Tensor:
        """int64 ``[batch, queries]`` to float32 ``[batch, queries, width]``."""
        if self._table is None or self._table.device != positions.device:
            self._table = self._computed(positions.device)
        return F.embedding(positions, self._table)

    def _computed(self, device: torch.device) -> Tensor:
        positions, width = self.shape
        step = -math.log(10000) / (width // 2 - 1)
        frequencies = torch.exp(torch.arange(width // 2, device=device).float() * step)
        angles = torch.arange(self.offset, self.offset + positions, device=device).float()[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TextTransformer(Transformer):
    """A transformer that adds position embeddings to its input."""

    def __init__(self, spec: TransformerSpec, positions: LearnedPositions | SinusoidalPositions) -> None:
        super().__init__(spec)
        self.positions = positions

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """Token embeddings ``[batch, queries, width]`` without positions to hidden states of the same shape."""
        return super().forward(x + self.positions(context.positions).to(x.dtype), context)
