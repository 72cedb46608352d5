"""Multi-head attention over keys and values that an :class:`AttentionContext` keeps.

The engine's contexts keep them in the paged KV cache, :class:`Bidirectional` (for encoders) keeps nothing, and
:class:`Growing` concatenates them (the tests' slow reference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlm.layers.rope import Rotation, rotate


@dataclass(frozen=True, slots=True)
class Sharing:
    """Which queries attend to the same encoder output, so that it is read once for all of them.

    Attributes:
        rows: int64 ``[encoded, longest]``: the rows that attend to each encoder output, padded with any of them.
        slots, columns: int64 ``[rows]``: row r is ``rows[slots[r], columns[r]]``.
    """

    rows: Tensor
    slots: Tensor
    columns: Tensor


class AttentionContext(Protocol):
    """Positions, masks, and the keys and values of one forward pass.

    Masks are boolean: True where a query may attend, or None if it may attend everywhere.
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

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep new keys and values ``[batch, heads, queries, head_dim]``; returns all that queries may attend to."""
        ...

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output, ``[encoded, heads, encoded positions, head_dim]``."""
        ...


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``[batch, positions, heads * head_dim]`` to ``[batch, heads, positions, head_dim]``."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of :func:`split_heads`."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention of a sequence to itself; query, key and value come from one fused matrix."""

    def __init__(
        self, width: int, heads: int, inner_norm: nn.LayerNorm | None = None, kv_heads: int | None = None
    ) -> None:
        """``kv_heads`` below ``heads`` means grouped queries; ``inner_norm`` comes before the output matrix."""
        super().__init__()
        self.heads = heads
        self.kv_heads = heads if kv_heads is None else kv_heads
        kv_width = self.kv_heads * (width // heads)
        self.widths = (width, kv_width, kv_width)
        self.qkv = nn.Linear(width, sum(self.widths))
        self.inner_norm = inner_norm
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, layer: int, context: AttentionContext, rotation: Rotation | None = None) -> Tensor:
        """``[batch, queries, width]`` in and out; ``rotation`` for models with rotary positions."""
        heads = (self.heads, self.kv_heads, self.kv_heads)
        every = split_heads(self.qkv(x), sum(heads))
        if rotation is None:
            queries, keys, values = every.split_with_sizes(heads, dim=1)
        else:  # queries and keys together, in half as many operations
            turned, values = every.split_with_sizes((self.heads + self.kv_heads, self.kv_heads), dim=1)
            queries, keys = rotate(turned, rotation).split_with_sizes(heads[:2], dim=1)
        keys, values = context.append(layer, keys, values)
        grouped = self.kv_heads != self.heads
        attended = merge_heads(
            F.scaled_dot_product_attention(queries, keys, values, attn_mask=context.mask, enable_gqa=grouped)
        )
        if self.inner_norm is not None:
            attended = self.inner_norm(attended)
        out: Tensor = self.out(attended)
        return out


class CrossAttention(nn.Module):
    """Attention to an encoder's output, whose keys and values are computed once for each sequence."""

    def __init__(self, width: int, heads: int, encoder_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(encoder_width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """``[batch, positions, encoder_width]`` to keys and values ``[batch, heads, positions, head_dim]``."""
        keys, values = self.key_value(encoded).chunk(2, dim=-1)
        return split_heads(keys, self.heads), split_heads(values, self.heads)

    def forward(self, x: Tensor, layer: int, context: AttentionContext) -> Tensor:
        """``[batch, queries, width]`` in and out."""
        return self.attend(x, *context.cross(layer), context.cross_mask, context.sharing)

    def attend(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, sharing: Sharing | None = None
    ) -> Tensor:
        """As :meth:`forward`, with given keys and values ``[encoded, heads, encoded positions, head_dim]``."""
        queries = split_heads(self.query(x), self.heads)
        if sharing is not None:  # one query a row; those of one encoder output become its positions
            queries = queries[sharing.rows, :, 0].transpose(1, 2)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        if sharing is not None:
            attended = attended[sharing.slots, :, sharing.columns].unsqueeze(2)
        out: Tensor = self.out(merge_heads(attended))
        return out


class Bidirectional:
    """An encoder's context: every position sees all others except padding on the right, and nothing is kept."""

    cross_mask: Tensor | None = None
    sharing: Sharing | None = None

    def __init__(self, positions: int, lengths: Tensor | None = None, device: torch.device | None = None) -> None:
        """``lengths``: number of real positions of each row, int64 ``[batch]``; None if no row is padded."""
        self.positions = torch.arange(positions, device=device).unsqueeze(0)
        self.mask = None if lengths is None else length_mask(lengths, positions)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002  the protocol's
        """The queries see exactly these keys and values."""
        return keys, values

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Encoders have no cross attention."""
        raise NotImplementedError(f"layer {layer} of an encoder has no cross attention")


class Growing:
    """Keys and values of one sequence, concatenated at each step: the reference for the engine's paged cache."""

    cross_mask: Tensor | None = None
    sharing: Sharing | None = None

    def __init__(self, cross: list[tuple[Tensor, Tensor]] | None = None, prefix: int = 0) -> None:
        """``prefix``: the first positions, this many, see each other; later ones see them and what is before."""
        self._prefix = prefix
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._cross = cross or []
        self.positions = torch.empty(1, 0, dtype=torch.long)
        self.mask: Tensor | None = None

    def advance(self, queries: int) -> None:
        """Set positions and mask of the next ``queries`` positions; a prefix must come whole."""
        start = int(self.positions[0, -1]) + 1 if self.positions.numel() else 0
        self.positions = torch.arange(start, start + queries).unsqueeze(0)
        keys = torch.arange(start + queries)
        self.mask = ((keys[None, :] <= self.positions[0][:, None]) | (keys < self._prefix))[None, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Concatenate along the positions."""
        if layer in self._kept:
            before_keys, before_values = self._kept[layer]
            keys, values = torch.cat([before_keys, keys], dim=2), torch.cat([before_values, values], dim=2)
        self._kept[layer] = (keys, values)
        return keys, values

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """The layer's keys and values, as given."""
        return self._cross[layer]


def length_mask(lengths: Tensor, positions: int) -> Tensor:
    """True at real positions: ``lengths`` int64 ``[batch]`` to ``[batch, 1, 1, positions]``."""
    return (torch.arange(positions, device=lengths.device) < lengths[:, None])[:, None, None]
