"""Keys and values on the device: blocks of positions, and one cross-attention part a slot.

    self attention    pool[layer][block][position in block][head]    a row's table lists its blocks in order
    cross attention   cross[layer][slot][head][position]             slots [0, m) run, so a batch is a slice

Position ``p`` of a row is at flat index ``table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE`` of the pool. The beams
of a sequence have a row each, but share its slot and most of its blocks.

The layers see one of three contexts: :class:`PrefillContext` computes whole prompts, :class:`ExtendContext` computes
prompts after a prefix, and :class:`DecodeContext` adds one position a row. All that a decode step reads besides its
:class:`DecodeShape` is in a buffer that is allocated once, so that steps of one shape can share a CUDA graph::

    row r of the step's buffer    position | cross positions of slot r | blocks of row r, padded with block 0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlm.engine.blocks import BLOCK_SIZE, CachePlan, blocks_for
from vlm.layers.attention import Sharing, length_mask
from vlm.layers.upload import staged, upload
from vlm.models.processor import CacheSpec

CrossKeysValues = Callable[[int], tuple[Tensor, Tensor]]

_POSITION, _CROSS_LENGTH, _TABLE = range(3)
"""Columns of a step's buffer; the table takes all from its own on."""


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """The sizes of a decode step: they alone decide which operations it takes.

    Attributes:
        rows: Number of rows.
        blocks: Number of blocks that are read for each row.
        slots: Number of slots that have cross-attention parts; 0 for a model without cross attention.
        cross_positions: Number of positions that are read of each of these.
        cross_masked: Whether some slots have fewer.
        beams: Number of rows of each slot; None if they differ, or if it is not known.
    """

    rows: int
    blocks: int
    slots: int = 0
    cross_positions: int = 0
    cross_masked: bool = False
    beams: int | None = 1


class KVCache:
    """All memory for keys and values, allocated once."""

    def __init__(self, spec: CacheSpec, plan: CachePlan, dtype: torch.dtype, device: torch.device) -> None:
        """Allocate as many blocks, slots and rows as ``plan`` says."""
        self.spec = spec
        self.plan = plan
        self.device = device
        kinds = 2 * spec.layers
        self._pool = _zeros((kinds, plan.blocks, BLOCK_SIZE, spec.kv_heads, spec.head_dim), dtype, device)
        self._cross = _zeros((kinds, plan.slots, spec.kv_heads, spec.cross_positions, spec.head_dim), dtype, device)
        self._cross_lengths = [0] * plan.slots
        numbers = plan.rows * (_TABLE + blocks_for(spec.max_positions))
        self._step = torch.zeros(numbers, dtype=torch.long, device=device)

    def move(self, source: int, target: int) -> None:
        """Copy the cross-attention part of slot ``source`` to slot ``target``. Blocks stay where they are."""
        length = self._cross_lengths[source]
        self._cross[:, target, :, :length] = self._cross[:, source, :, :length]
        self._cross_lengths[target] = length

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy blocks; all ``sources`` are read before any of ``targets`` is written."""
        read, written = upload([sources, targets], self.device)
        self._pool[:, written] = self._pool[:, read]

    def prefill(self, prompt: Prompt, cross: CrossKeysValues | None = None) -> PrefillContext | ExtendContext:
        """A context that computes prompts and writes their keys and values into their blocks.

        Args:
            prompt: Which blocks and slots are theirs.
            cross: Computes the cross-attention keys and values of a layer, ``[batch, heads, positions, head_dim]``
                each; None for a model without cross attention.
        """
        if any(prompt.starts):
            assert cross is None, "no model has both a prefix and cross attention"
            return ExtendContext(self, prompt)
        if cross is not None:
            self._cross_lengths[prompt.slot : prompt.slot + len(prompt.lengths)] = prompt.encoded_lengths
        return PrefillContext(self, prompt, cross)

    def decode(self, tables: Sequence[Sequence[int]], positions: Sequence[int], slots: Sequence[int]) -> DecodeContext:
        """A context that adds one position to each of the rows [0, n).

        Args:
            tables: Each row's blocks.
            positions: Each row's new position.
            slots: Each row's slot: all of [0, m), in order.
        """
        shape = self.decode_shape(tables, slots)
        self.upload(shape, tables, positions)
        return DecodeContext(self, shape, self.sharing(slots))

    def decode_shape(self, tables: Sequence[Sequence[int]], slots: Sequence[int]) -> DecodeShape:
        """The exact shape of a step; see :meth:`decode`."""
        rows, blocks = len(tables), max(map(len, tables))
        if not self.spec.cross_positions:
            return DecodeShape(rows, blocks)
        number = slots[-1] + 1
        lengths = self._cross_lengths[:number]
        return DecodeShape(rows, blocks, number, max(lengths), min(lengths) < max(lengths), _beams(slots))

    def upload(self, shape: DecodeShape, tables: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
        """Fill the step's buffer, in one copy. Rows beyond those of ``tables`` write to block 0 and mean nothing."""
        step = np.zeros((shape.rows, _TABLE + shape.blocks), dtype=np.int64)
        step[: len(positions), _POSITION] = positions
        step[: shape.slots, _CROSS_LENGTH] = self._cross_lengths[: shape.slots]
        for row, table in enumerate(tables):
            step[row, _TABLE : _TABLE + len(table)] = table
        self._step[: step.size].copy_(staged(step.reshape(-1), self.device), non_blocking=True)

    def uploaded(self, shape: DecodeShape) -> Tensor:
        """The buffer that :meth:`upload` filled, int64 ``[rows, columns]``: a view of the same memory at each step."""
        columns = _TABLE + shape.blocks
        return self._step[: shape.rows * columns].view(shape.rows, columns)

    def sharing(self, slots: Sequence[int]) -> Sharing | None:
        """Which rows share a slot's cross-attention part; None if each has its own."""
        return _sharing(slots, self.device) if self.spec.cross_positions else None

    def write(self, kind: int, indices: Tensor, values: Tensor) -> None:
        """Put ``values`` ``[n, heads, head_dim]`` at flat ``indices`` ``[n]`` of one layer's keys or values.

        ``kind`` is ``2 * layer`` for keys and ``2 * layer + 1`` for values.

        Values are made finite first. A mask gives weight 0 to what an earlier sequence has left in a block, but 0 times
        NaN is NaN: otherwise one answer that overflows would spoil the next one in its blocks.
        """
        self._pool[kind].flatten(0, 1).index_copy_(0, indices, _clamp_finite(values))

    def read(self, kind: int, tables: Tensor) -> Tensor:
        """The blocks of ``tables`` int64 ``[rows, blocks]``, as ``[rows, heads, positions, head_dim]``."""
        blocks = self._pool[kind].index_select(0, tables.view(-1))
        return blocks.view(len(tables), -1, *blocks.shape[2:]).transpose(1, 2)

    def write_cross(self, kind: int, slot: int, values: Tensor) -> None:
        """Put ``values`` ``[batch, heads, positions, head_dim]`` into the slots from ``slot`` on."""
        self._cross[kind][slot : slot + len(values), :, : values.shape[2]] = _clamp_finite(values)

    def read_cross(self, kind: int, slots: int, positions: int) -> Tensor:
        """The first ``slots`` slots and ``positions`` positions: a view, without a copy."""
        return self._cross[kind][:slots, :, :positions]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The blocks and slots of a batch of prompts; prompt i computes positions ``[starts[i], starts[i] + lengths[i])``.

    Attributes:
        slot: The first of their consecutive slots.
        tables: Each prompt's blocks.
        lengths: Each prompt's number of positions to compute.
        encoded_lengths: Each prompt's number of encoder positions; empty without cross attention.
        starts: Number of positions of the prefix that each prompt's blocks already hold; empty if there is none.
        causal: Whether a position sees only itself and those before it.
    """

    slot: int
    tables: Sequence[Sequence[int]]
    lengths: Sequence[int]
    encoded_lengths: Sequence[int] = ()
    starts: Sequence[int] = ()
    causal: bool = True


class PrefillContext:
    """Whole prompts, right-padded; their keys and values are written into their blocks as they are computed."""

    sharing: Sharing | None = None

    def __init__(self, cache: KVCache, prompt: Prompt, cross: CrossKeysValues | None) -> None:
        longest, device = max(prompt.lengths), cache.device
        self._cache = cache
        self._slot = prompt.slot
        self._cross = cross
        self._real, self._indices = _indices(prompt, longest, device)
        self.positions = torch.arange(longest, device=device).unsqueeze(0)
        # Padding is on the right, so with a causal mask no real query sees it.
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        self.mask = causal[None, None] if longest > 1 and prompt.causal else None
        self.cross_mask = _cross_mask(prompt.encoded_lengths, device)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the real positions; the queries see what has just been computed."""
        for kind, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self._cache.write(kind, self._indices, _real_positions(new, self._real))
        return keys, values

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Compute the layer's keys and values of the encoder's output, and write them into the slots."""
        assert self._cross is not None, "the model has cross attention but embed() gave no encoder output"
        keys, values = self._cross(layer)
        self._cache.write_cross(2 * layer, self._slot, keys)
        self._cache.write_cross(2 * layer + 1, self._slot, values)
        return keys, values


class ExtendContext:
    """Prompts after a prefix that their blocks already hold, right-padded and causal."""

    cross_mask: Tensor | None = None
    sharing: Sharing | None = None

    def __init__(self, cache: KVCache, prompt: Prompt) -> None:
        longest, device = max(prompt.lengths), cache.device
        self._cache = cache
        self._real, self._indices = _indices(prompt, longest, device)
        self._tables = _table(prompt.tables, device)
        starts = upload(prompt.starts, device)
        self.positions = starts[:, None] + torch.arange(longest, device=device)
        keys = torch.arange(self._tables.shape[1] * BLOCK_SIZE, device=device)
        self.mask = (keys <= self.positions[..., None])[:, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the real positions, and read all positions up to them."""
        for kind, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self._cache.write(kind, self._indices, _real_positions(new, self._real))
        return self._cache.read(2 * layer, self._tables), self._cache.read(2 * layer + 1, self._tables)

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Models with a prefix have no cross attention."""
        raise NotImplementedError(f"layer {layer} has no cross attention")


class DecodeContext:
    """One new position in each of the rows [0, n), which sees itself and all before it."""

    def __init__(self, cache: KVCache, shape: DecodeShape, sharing: Sharing | None) -> None:
        """Read the step's buffer, without any copy from the host, so that this can be part of a CUDA graph."""
        step = cache.uploaded(shape)
        self._cache = cache
        self._shape = shape
        self.sharing = sharing
        self.positions = step[:, _POSITION : _POSITION + 1]
        self._tables = step[:, _TABLE:].contiguous()
        block, offset = self.positions // BLOCK_SIZE, self.positions % BLOCK_SIZE
        self._indices = (self._tables.gather(1, block) * BLOCK_SIZE + offset)[:, 0]
        self.mask = length_mask(self.positions[:, 0] + 1, shape.blocks * BLOCK_SIZE)
        lengths = step[: shape.slots, _CROSS_LENGTH]
        self.cross_mask = length_mask(lengths, shape.cross_positions) if shape.cross_masked else None

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new position, and read all positions up to it."""
        for kind, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self._cache.write(kind, self._indices, new[:, :, 0])
        return self._cache.read(2 * layer, self._tables), self._cache.read(2 * layer + 1, self._tables)

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output, as prefill has written them."""
        slots, positions = self._shape.slots, self._shape.cross_positions
        return (
            self._cache.read_cross(2 * layer, slots, positions),
            self._cache.read_cross(2 * layer + 1, slots, positions),
        )


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the CPU they take memory only once they are written to, while ``torch.zeros`` takes it at once."""
    if device.type != "cpu" or not math.prod(shape):
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


def _indices(prompt: Prompt, longest: int, device: torch.device) -> tuple[Tensor | None, Tensor]:
    """Flat indices of the real positions: in the padded batch, or None if nothing is padded, and in the pool."""
    real, indices = [], []
    starts = prompt.starts or (0,) * len(prompt.lengths)
    for row, (table, start, length) in enumerate(zip(prompt.tables, starts, prompt.lengths, strict=True)):
        positions = np.arange(start, start + length)
        real.append(np.arange(row * longest, row * longest + length))
        indices.append(np.asarray(table)[positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE)
    padded = min(prompt.lengths) < longest
    return _joined(real, device) if padded else None, _joined(indices, device)


def _joined(parts: Sequence[np.ndarray[Any, Any]], device: torch.device) -> Tensor:
    return upload(np.concatenate(parts), device)


def _real_positions(values: Tensor, real: Tensor | None) -> Tensor:
    """``[batch, heads, positions, head_dim]`` to ``[n, heads, head_dim]``, without padding; see :func:`_indices`."""
    flat = values.transpose(1, 2).flatten(0, 1)
    return flat if real is None else flat[real]


def _clamp_finite(values: Tensor) -> Tensor:
    """Replace NaN by 0, and bound the rest so that sums of products are finite; no sound value is that large."""
    bound = min(1e15, torch.finfo(values.dtype).max)
    return values.nan_to_num(nan=0.0, posinf=bound, neginf=-bound).clamp(-bound, bound)


def _table(tables: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Tables as int64 ``[rows, longest]``; shorter ones are padded with block 0."""
    longest = max(map(len, tables))
    return upload([[*table, *[0] * (longest - len(table))] for table in tables], device)


def _beams(slots: Sequence[int]) -> int | None:
    """How many rows each slot has; None if not all have as many."""
    beams, left = divmod(len(slots), slots[-1] + 1)
    uniform = not left and all(slot == row // beams for row, slot in enumerate(slots))
    return beams if uniform else None


def _sharing(slots: Sequence[int], device: torch.device) -> Sharing | None:
    """Which rows share a slot; None if each has its own."""
    if len(slots) == slots[-1] + 1:
        return None
    rows: list[list[int]] = [[] for _ in range(slots[-1] + 1)]
    columns = []
    for row, slot in enumerate(slots):
        columns.append(len(rows[slot]))
        rows[slot].append(row)
    longest = max(map(len, rows))
    padded = [[*group, *group[:1] * (longest - len(group))] for group in rows]
    return Sharing(*(upload(part, device) for part in (padded, list(slots), columns)))


def _cross_mask(lengths: Sequence[int], device: torch.device) -> Tensor | None:
    if not lengths or min(lengths) == max(lengths):
        return None
    return length_mask(upload(lengths, device), max(lengths))
