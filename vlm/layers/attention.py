"""Multi-head attention over keys and values that an :class:`AttentionContext` keeps.

The engine's contexts keep them in the paged KV cache, :class:`Bidirectional` (for encoders) keeps nothing, and
:class:`Growing` concatenates them (the tests' slow reference).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlm.layers.modules import LayerNorm, Linear
from vlm.layers.rope import Rotation, rotate


class Sharing(Protocol):
    """Which rows attend to the same encoder output, so that it is read once for all of them.

    Each of these rows has one query, and those of one encoder output become its positions.
    """

    def together(self, rows: Tensor) -> Tensor:
        """``[rows, 1, width]`` to ``[encoded, queries of each, width]``."""
        ...

    def apart(self, queries: Tensor) -> Tensor:
        """The inverse of :meth:`together`."""
        ...


@dataclass(frozen=True, slots=True)
class EvenSharing:
    """Each encoder output has the same number of ``rows``, one after the other: then only the shape changes."""

    rows: int

    def together(self, rows: Tensor) -> Tensor:
        """See :class:`Sharing`."""
        return rows.view(-1, self.rows, rows.shape[-1])

    def apart(self, queries: Tensor) -> Tensor:
        """See :class:`Sharing`."""
        return queries.reshape(-1, 1, queries.shape[-1])


@dataclass(frozen=True, slots=True)
class UnevenSharing:
    """Encoder outputs have different numbers of rows.

    Attributes:
        rows: int64 ``[encoded, longest]``: the rows that attend to each encoder output, padded with any of them.
        slots, columns: int64 ``[rows]``: row r is ``rows[slots[r], columns[r]]``.
    """

    rows: Tensor
    slots: Tensor
    columns: Tensor

    def together(self, rows: Tensor) -> Tensor:
        """See :class:`Sharing`."""
        return rows[self.rows, 0]

    def apart(self, queries: Tensor) -> Tensor:
        """See :class:`Sharing`."""
        return queries[self.slots, self.columns].unsqueeze(1)


class AttentionContext(Protocol):
    """Positions, masks, and the keys and values of one forward pass.

    Masks are boolean, True where a query may attend, or what is added to the scores, see :func:`additive`; or None if
    queries may attend everywhere. Keys and values of a position are one tensor ``[2 * kv_heads, head_dim]``: the keys
    of all heads, then their values.
    """

    @property
    def positions(self) -> Tensor:
        """Position of each query, int64 ``[batch, queries]``."""
        ...

    @property
    def mask(self) -> Tensor | None:
        """For self attention, ``[batch or 1, 1, queries, keys]``."""
        ...

    @property
    def cross_mask(self) -> Tensor | None:
        """For cross attention, ``[encoded, 1, 1, encoded positions]``."""
        ...

    @property
    def sharing(self) -> Sharing | None:
        """Which rows share an encoder output; None if each row has its own, in the same order."""
        ...

    def append(self, layer: int, keys_values: Tensor) -> Tensor:
        """Keep those of new positions ``[batch, queries, ...]``; returns all that queries may attend to."""
        ...

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output, ``[encoded, heads, encoded positions, head_dim]``."""
        ...


def by_head(keys_values: Tensor) -> tuple[Tensor, Tensor]:
    """``[batch, positions, 2 * heads, head_dim]`` to keys and values ``[batch, heads, positions, head_dim]``: views."""
    keys, values = keys_values.transpose(1, 2).chunk(2, dim=1)
    return keys, values


def merge_heads(x: Tensor) -> Tensor:
    """``[batch, heads, positions, head_dim]`` to ``[batch, positions, heads * head_dim]``."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention of a sequence to itself; query, key and value come from one fused matrix."""

    def __init__(
        self, width: int, heads: int, inner_norm: LayerNorm | None = None, kv_heads: int | None = None
    ) -> None:
        """``kv_heads`` below ``heads`` means grouped queries; ``inner_norm`` comes before the output matrix."""
        super().__init__()
        self.heads = heads
        self.kv_heads = heads if kv_heads is None else kv_heads
        self.head_dim = width // heads
        kv_width = self.kv_heads * self.head_dim
        self.widths = (width, kv_width, kv_width)
        self.qkv = Linear(width, sum(self.widths))
        self.inner_norm = inner_norm
        self.out = Linear(width, width)

    def forward(self, x: Tensor, layer: int, context: AttentionContext, rotation: Rotation | None = None) -> Tensor:
        """``[batch, queries, width]`` in and out; ``rotation`` for models with rotary positions."""
        batch, length, _ = x.shape
        every = self.qkv(x).view(batch, length, self.heads + 2 * self.kv_heads, self.head_dim)
        if rotation is not None:  # queries and keys together, in half as many operations
            rotate(every[:, :, : self.heads + self.kv_heads], rotation)
        queries, keys_values = every.split_with_sizes((self.heads, 2 * self.kv_heads), dim=2)
        keys, values = by_head(context.append(layer, keys_values))
        grouped = self.kv_heads != self.heads
        attended = merge_heads(
            F.scaled_dot_product_attention(
                queries.transpose(1, 2), keys, values, attn_mask=context.mask, enable_gqa=grouped
            )
        )
        if self.inner_norm is not None:
            attended = self.inner_norm(attended)
        return self.out(attended)


class CrossAttention(nn.Module):
    """Attention to an encoder's output, whose keys and values are computed once for each sequence."""

    def __init__(self, width: int, heads: int, encoder_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width)
        self.key_value = Linear(encoder_width, 2 * width)
        self.out = Linear(width, width)

    def keys_values(self, encoded: Tensor) -> Tensor:
        """``[batch, positions, encoder_width]`` to ``[batch, positions, 2 * heads, head_dim]``."""
        batch, positions, _ = encoded.shape
        keys_values: Tensor = self.key_value(encoded).view(batch, positions, 2 * self.heads, -1)
        return keys_values

    def forward(self, x: Tensor, layer: int, context: AttentionContext) -> Tensor:
        """``[batch, queries, width]`` in and out."""
        sharing = context.sharing
        if sharing is None:
            return self.attend(x, *context.cross(layer), context.cross_mask)
        return sharing.apart(self.attend(sharing.together(x), *context.cross(layer), context.cross_mask))

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[batch, queries, width]`` in and out; keys and values ``[batch, heads, positions, head_dim]``."""
        batch, length, _ = x.shape
        queries = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.out(merge_heads(attended))


class Bidirectional:
    """An encoder's context: every position sees all others except padding on the right, and nothing is kept."""

    cross_mask: Tensor | None = None
    sharing: Sharing | None = None

    def __init__(self, positions: int, lengths: Tensor | None = None, device: torch.device | None = None) -> None:
        """``lengths``: number of real positions of each row, int64 ``[batch]``; None if no row is padded."""
        self.positions = torch.arange(positions, device=device).unsqueeze(0)
        self.mask = None if lengths is None else length_mask(lengths, positions)

    def append(self, layer: int, keys_values: Tensor) -> Tensor:  # noqa: ARG002  the protocol's
        """The queries see exactly these keys and values."""
        return keys_values

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Encoders have no cross attention."""
        raise NotImplementedError(f"layer {layer} of an encoder has no cross attention")


class Growing:
    """Keys and values of one sequence, concatenated at each step: the reference for the engine's paged cache."""

    cross_mask: Tensor | None = None
    sharing: Sharing | None = None

    def __init__(self, cross: Sequence[Tensor] = (), prefix: int = 0) -> None:
        """Start with no positions.

        Args:
            cross: Each layer's keys and values of the encoder's output.
            prefix: The first positions, this many, see each other; later ones see them and what is before.
        """
        self._prefix = prefix
        self._kept: dict[int, Tensor] = {}
        self._cross = cross
        self.positions = torch.empty(1, 0, dtype=torch.long)
        self.mask: Tensor | None = None

    def advance(self, queries: int) -> None:
        """Set positions and mask of the next ``queries`` positions; a prefix must come whole."""
        start = int(self.positions[0, -1]) + 1 if self.positions.numel() else 0
        self.positions = torch.arange(start, start + queries).unsqueeze(0)
        keys = torch.arange(start + queries)
        self.mask = ((keys[None, :] <= self.positions[0][:, None]) | (keys < self._prefix))[None, None]

    def append(self, layer: int, keys_values: Tensor) -> Tensor:
        """Concatenate along the positions."""
        if layer in self._kept:
            keys_values = torch.cat([self._kept[layer], keys_values], dim=1)
        self._kept[layer] = keys_values
        return keys_values

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """The layer's keys and values, as given."""
        return by_head(self._cross[layer])


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as what is added to the scores: 0 where a query may attend, and minus infinity elsewhere.

    PyTorch would make it again of a boolean mask in each layer.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask.logical_not(), -torch.inf)


def length_mask(lengths: Tensor, positions: int) -> Tensor:
    """True at real positions: ``lengths`` int64 ``[batch]`` to ``[batch, 1, 1, positions]``."""
    return (torch.arange(positions, device=lengths.device) < lengths[:, None])[:, None, None]
