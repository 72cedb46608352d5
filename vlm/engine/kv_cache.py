"""Keys and values on the device: blocks of positions, and one cross-attention part a slot.

    self attention    pool[layer][block][position in block][head]    a row's table lists its blocks in order
    cross attention   cross[layer][slot][head][position]             slots [0, m) run, so a batch is a slice

The heads of the keys come first, then those of the values, so that a layer writes both in one operation, and reads both
in one. Position ``p`` of a row is at flat index ``table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE`` of a layer's
pool. The beams of a sequence have a row each, but share its slot and most of its blocks.

The layers see one of three contexts: :class:`PrefillContext` computes whole prompts, :class:`ExtendContext` computes
prompts after a prefix, and :class:`DecodeContext` adds one position a row. All that a decode step reads besides its
:class:`DecodeShape` is in a buffer that is allocated once, so that steps of one shape can share a CUDA graph::

    position of each row | its flat index | cross positions of each slot | blocks of row 0 | blocks of row 1 | ...

Each row has as many blocks there as the longest needs: block 0 fills up the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlm.engine.blocks import BLOCK_SIZE, CachePlan, blocks_for
from vlm.layers.attention import EvenSharing, Sharing, UnevenSharing, additive, by_head, length_mask
from vlm.layers.upload import staged, upload
from vlm.models.processor import CacheSpec

CrossKeysValues = Callable[[int], Tensor]


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """The sizes of a decode step: they alone decide which operations it takes.

    Attributes:
        rows: Number of rows.
        positions: Number of positions that are read for each row.
        masked: Whether some rows have fewer.
        slots: Number of slots that have cross-attention parts; 0 for a model without cross attention.
        cross_positions: Number of positions that are read of each of these.
        cross_masked: Whether some slots have fewer.
        beams: Number of rows of each slot; None if they differ. 1 for a model without cross attention.
    """

    rows: int
    positions: int
    masked: bool = False
    slots: int = 0
    cross_positions: int = 0
    cross_masked: bool = False
    beams: int | None = 1

    @property
    def blocks(self) -> int:
        """Number of blocks that are read for each row."""
        return blocks_for(self.positions)


class KVCache:
    """All memory for keys and values, allocated once."""

    def __init__(self, spec: CacheSpec, plan: CachePlan, dtype: torch.dtype, device: torch.device) -> None:
        """Allocate as many blocks, slots and rows as ``plan`` says."""
        self.spec = spec
        self.plan = plan
        self.dtype = dtype
        self.device = device
        layers, heads, head_dim = spec.layers, 2 * spec.kv_heads, spec.head_dim
        self._pool = _zeros((layers, plan.blocks, BLOCK_SIZE, heads, head_dim), dtype, device)
        self._cross = _zeros((layers, plan.slots, heads, spec.cross_positions, head_dim), dtype, device)
        self._by_block = self._pool.unbind()
        self._by_position = self._pool.flatten(1, 2).unbind()
        self._cross_lengths = [0] * plan.slots
        numbers = 2 * plan.rows + plan.slots + plan.rows * blocks_for(spec.max_positions)
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
            cross: Computes the cross-attention keys and values of a layer, ``[batch, positions, 2 * heads, head_dim]``;
                None for a model without cross attention.
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
        shape = self.decode_shape(positions, slots)
        self.upload(shape, tables, positions)
        return DecodeContext(self, shape, self._sharing(shape, slots))

    def decode_shape(self, positions: Sequence[int], slots: Sequence[int]) -> DecodeShape:
        """The exact shape of a step; see :meth:`decode`."""
        longest = max(positions)
        shape = DecodeShape(len(positions), longest + 1, masked=min(positions) < longest)
        if not self.spec.cross_positions:
            return shape
        lengths = self._cross_lengths[: slots[-1] + 1]
        most = max(lengths)
        return replace(
            shape, slots=len(lengths), cross_positions=most, cross_masked=min(lengths) < most, beams=_beams(slots)
        )

    def upload(self, shape: DecodeShape, tables: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
        """Fill the step's buffer, in one copy. Rows beyond those of ``tables`` write to block 0 and mean nothing."""
        blocks, more = shape.blocks, [0] * (shape.rows - len(positions))
        indices = [
            table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
            for table, position in zip(tables, positions, strict=True)
        ]
        numbers = [*positions, *more, *indices, *more, *self._cross_lengths[: shape.slots]]
        for table in tables:
            numbers += table[:blocks]
            numbers += [0] * (blocks - len(table))
        numbers += [0] * (blocks * len(more))
        self._step[: len(numbers)].copy_(staged(np.array(numbers), self.device), non_blocking=True)

    def uploaded(self, shape: DecodeShape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What :meth:`upload` filled in: views of the same memory at each step of this shape.

        Returns:
            Positions ``[rows]``, their flat indices ``[rows]``, the slots' cross-attention lengths ``[slots]``, and the
            rows' tables, one after the other ``[rows * blocks]``; all int64.
        """
        sizes = (shape.rows, shape.rows, shape.slots, shape.rows * shape.blocks)
        positions, indices, lengths, tables = self._step[: sum(sizes)].split_with_sizes(sizes)
        return positions, indices, lengths, tables

    def write(self, layer: int, indices: Tensor, keys_values: Tensor) -> None:
        """Put ``keys_values`` ``[n, 2 * heads, head_dim]`` at flat ``indices`` ``[n]`` of a layer."""
        self._by_position[layer].index_copy_(0, indices, _finite(keys_values))

    def read(self, layer: int, tables: Tensor, rows: int) -> Tensor:
        """The blocks of ``tables`` int64 ``[rows * blocks]``, as ``[rows, positions, 2 * heads, head_dim]``."""
        blocks = self._by_block[layer].index_select(0, tables)
        return blocks.view(rows, -1, *blocks.shape[2:])

    def write_cross(self, layer: int, slot: int, keys_values: Tensor) -> None:
        """Put ``keys_values`` ``[batch, positions, 2 * heads, head_dim]`` into the slots from ``slot`` on."""
        written = _finite(keys_values).transpose(1, 2)
        self._cross[layer][slot : slot + len(written), :, : written.shape[2]] = written

    def read_cross(self, slots: int, positions: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Each layer's keys, and its values, of the first ``slots`` slots and ``positions`` positions: only views."""
        keys, values = self._cross[:, :slots, :, :positions].chunk(2, dim=2)
        return keys.unbind(), values.unbind()

    def _sharing(self, shape: DecodeShape, slots: Sequence[int]) -> Sharing | None:
        return _uneven_sharing(slots, self.device) if shape.beams is None else sharing(shape.beams)


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
        self.mask = additive(causal[None, None], cache.dtype) if longest > 1 and prompt.causal else None
        self.cross_mask = _cross_mask(prompt.encoded_lengths, cache)

    def append(self, layer: int, keys_values: Tensor) -> Tensor:
        """Write the real positions; the queries see what has just been computed."""
        self._cache.write(layer, self._indices, _real_positions(keys_values, self._real))
        return keys_values

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Compute the layer's keys and values of the encoder's output, and write them into the slots."""
        assert self._cross is not None, "the model has cross attention but embed() gave no encoder output"
        keys_values = self._cross(layer)
        self._cache.write_cross(layer, self._slot, keys_values)
        return by_head(keys_values)


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
        self.mask = additive((keys <= self.positions[..., None])[:, None], cache.dtype)

    def append(self, layer: int, keys_values: Tensor) -> Tensor:
        """Write the real positions, and read all positions up to them."""
        self._cache.write(layer, self._indices, _real_positions(keys_values, self._real))
        return self._cache.read(layer, self._tables.view(-1), len(self._tables))

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Models with a prefix have no cross attention."""
        raise NotImplementedError(f"layer {layer} has no cross attention")


class DecodeContext:
    """One new position in each of the rows [0, n), which sees itself and all before it."""

    def __init__(self, cache: KVCache, shape: DecodeShape, sharing: Sharing | None) -> None:
        """Read the step's buffer, without any copy from the host, so that this can be part of a CUDA graph."""
        positions, self._indices, lengths, self._tables = cache.uploaded(shape)
        self._cache = cache
        self._shape = shape
        self._cross = cache.read_cross(shape.slots, shape.cross_positions) if shape.slots else ((), ())
        self.sharing = sharing
        self.positions = positions.unsqueeze(1)
        self.mask = _length_mask(positions + 1, shape.positions, cache) if shape.masked else None
        self.cross_mask = _length_mask(lengths, shape.cross_positions, cache) if shape.cross_masked else None

    def append(self, layer: int, keys_values: Tensor) -> Tensor:
        """Write the new position, and read all positions up to it."""
        self._cache.write(layer, self._indices, keys_values[:, 0])
        return self._cache.read(layer, self._tables, self._shape.rows)[:, : self._shape.positions]

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output, as prefill has written them."""
        keys, values = self._cross
        return keys[layer], values[layer]


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


def _real_positions(keys_values: Tensor, real: Tensor | None) -> Tensor:
    """``[batch, positions, ...]`` to ``[n, ...]``, without padding; see :func:`_indices`."""
    flat = keys_values.flatten(0, 1)
    return flat if real is None else flat[real]


def _finite(keys_values: Tensor) -> Tensor:
    """Replace NaN by 0, and infinity by a number that is so small that sums of its products are finite.

    A mask gives weight 0 to what an earlier sequence has left in a block, but 0 times NaN is NaN: otherwise one answer
    that overflows would spoil the next one in its blocks. Other numbers need no bound, because layers compute keys and
    values from the output of a norm.
    """
    bound = min(1e15, torch.finfo(keys_values.dtype).max)
    return keys_values.nan_to_num(0.0, bound, -bound)


def _table(tables: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Tables as int64 ``[rows, longest]``; shorter ones are padded with block 0."""
    longest = max(map(len, tables))
    return upload([[*table, *[0] * (longest - len(table))] for table in tables], device)


def _beams(slots: Sequence[int]) -> int | None:
    """How many rows each slot has; None if not all have as many."""
    beams, left = divmod(len(slots), slots[-1] + 1)
    uniform = not left and all(slot == row // beams for row, slot in enumerate(slots))
    return beams if uniform else None


def sharing(beams: int) -> Sharing | None:
    """Which rows share a slot, if each has ``beams`` of them."""
    return EvenSharing(beams) if beams > 1 else None


def _uneven_sharing(slots: Sequence[int], device: torch.device) -> Sharing:
    """Which rows share a slot, if not each has as many."""
    rows: list[list[int]] = [[] for _ in range(slots[-1] + 1)]
    columns = []
    for row, slot in enumerate(slots):
        columns.append(len(rows[slot]))
        rows[slot].append(row)
    longest = max(map(len, rows))
    padded = [[*group, *group[:1] * (longest - len(group))] for group in rows]
    return UnevenSharing(*(upload(part, device) for part in (padded, list(slots), columns)))


def _length_mask(lengths: Tensor, positions: int, cache: KVCache) -> Tensor:
    return additive(length_mask(lengths, positions), cache.dtype)


def _cross_mask(lengths: Sequence[int], cache: KVCache) -> Tensor | None:
    if not lengths or min(lengths) == max(lengths):
        return None
    return _length_mask(upload(lengths, cache.device), max(lengths), cache)
