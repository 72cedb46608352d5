"""Keys and values on the device: blocks of positions, and one cross-attention part a slot.

    self attention    pool[layer][block][position in block][head]    a row's table lists its blocks in order
    cross attention   cross[layer][slot][head][position]             slots [0, m) run, so a batch is a slice

Position ``p`` of a row is at flat index ``table[p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE`` of the pool. The beams
of a sequence have a row each, but share its slot and most of its blocks.

The layers see one of three contexts: :class:`PrefillContext` computes whole prompts, :class:`ExtendContext` computes
prompts after a prefix, and :class:`DecodeContext` adds one position a row. The tables and positions of a decode step
are in buffers that are allocated once, so that its shapes and addresses can be captured in a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlm.engine.blocks import BLOCK_SIZE, CachePlan, blocks_for
from vlm.layers.attention import Sharing, length_mask
from vlm.models.processor import CacheSpec

CrossKeysValues = Callable[[int], tuple[Tensor, Tensor]]


class KVCache:
    """All memory for keys and values, allocated once."""

    def __init__(self, spec: CacheSpec, plan: CachePlan, dtype: torch.dtype, device: torch.device) -> None:
        """Allocate as many blocks, slots and rows as ``plan`` says."""
        self.spec = spec
        self.device = device
        pool = (plan.blocks, BLOCK_SIZE, spec.kv_heads, spec.head_dim)
        cross = (plan.slots, spec.kv_heads, spec.cross_positions, spec.head_dim)
        kinds = range(2 * spec.layers)
        self._pool = [_zeros(pool, dtype, device) for _ in kinds]
        self._cross = [_zeros(cross, dtype, device) for _ in kinds] if spec.cross_positions else []
        self._cross_lengths = [0] * plan.slots
        self._tables = torch.zeros(plan.rows, blocks_for(spec.max_positions), dtype=torch.long, device=device)
        self._positions = torch.zeros(plan.rows, 1, dtype=torch.long, device=device)

    def move(self, source: int, target: int) -> None:
        """Copy the cross-attention part of slot ``source`` to slot ``target``. Blocks stay where they are."""
        length = self._cross_lengths[source]
        for cross in self._cross:
            cross[target, :, :length] = cross[source, :, :length]
        self._cross_lengths[target] = length

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy blocks; all ``sources`` are read before any of ``targets`` is written."""
        read = torch.tensor(sources, device=self.device)
        written = torch.tensor(targets, device=self.device)
        for pool in self._pool:
            pool[written] = pool[read]

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
        rows, longest = len(tables), max(map(len, tables))
        self._tables[:rows, :longest].copy_(_table(tables, torch.device("cpu")))
        self._positions[:rows, 0].copy_(torch.tensor(positions))
        sharing = _sharing(slots, self.device) if self._cross else None
        return DecodeContext(self, rows, longest, self._cross_lengths[: slots[-1] + 1], sharing)

    def write(self, kind: int, indices: Tensor, values: Tensor) -> None:
        """Put ``values`` ``[n, heads, head_dim]`` at flat ``indices`` ``[n]`` of one layer's keys or values.

        ``kind`` is ``2 * layer`` for keys and ``2 * layer + 1`` for values.

        Values are made finite first. A mask gives weight 0 to what an earlier sequence has left in a block, but 0 times
        NaN is NaN: otherwise one answer that overflows would spoil the next one in its blocks.
        """
        self._pool[kind].flatten(0, 1).index_copy_(0, indices, _clamp_finite(values))

    def read(self, kind: int, tables: Tensor) -> Tensor:
        """The blocks of ``tables`` int64 ``[rows, blocks]``, as ``[rows, heads, positions, head_dim]``."""
        blocks = self._pool[kind].index_select(0, tables.flatten())
        return blocks.view(len(tables), -1, *blocks.shape[2:]).transpose(1, 2)

    def write_cross(self, kind: int, slot: int, values: Tensor) -> None:
        """Put ``values`` ``[batch, heads, positions, head_dim]`` into the slots from ``slot`` on."""
        self._cross[kind][slot : slot + len(values), :, : values.shape[2]] = _clamp_finite(values)

    def read_cross(self, kind: int, slots: int, positions: int) -> Tensor:
        """The first ``slots`` slots and ``positions`` positions: a view, without a copy."""
        return self._cross[kind][:slots, :, :positions]

    def batch_tables(self, rows: int, blocks: int) -> Tensor:
        """The tables that :meth:`decode` wrote, int64 ``[rows, blocks]``."""
        return self._tables[:rows, :blocks]

    def batch_positions(self, rows: int) -> Tensor:
        """The positions that :meth:`decode` wrote, int64 ``[rows, 1]``."""
        return self._positions[:rows]


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
            self._cache.write(kind, self._indices, new.transpose(1, 2).flatten(0, 1)[self._real])
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
        starts = torch.tensor(prompt.starts, device=device)
        self.positions = starts[:, None] + torch.arange(longest, device=device)
        keys = torch.arange(self._tables.shape[1] * BLOCK_SIZE, device=device)
        self.mask = (keys <= self.positions[..., None])[:, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the real positions, and read all positions up to them."""
        for kind, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self._cache.write(kind, self._indices, new.transpose(1, 2).flatten(0, 1)[self._real])
        return self._cache.read(2 * layer, self._tables), self._cache.read(2 * layer + 1, self._tables)

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Models with a prefix have no cross attention."""
        raise NotImplementedError(f"layer {layer} has no cross attention")


class DecodeContext:
    """One new position in each of the rows [0, n), which sees itself and all before it."""

    def __init__(
        self, cache: KVCache, rows: int, blocks: int, cross_lengths: Sequence[int], sharing: Sharing | None
    ) -> None:
        self._cache = cache
        self._slots = len(cross_lengths)
        self.sharing = sharing
        self._tables = cache.batch_tables(rows, blocks)
        self.positions = cache.batch_positions(rows)
        block, offset = self.positions // BLOCK_SIZE, self.positions % BLOCK_SIZE
        self._indices = (self._tables.gather(1, block) * BLOCK_SIZE + offset)[:, 0]
        self.mask = length_mask(self.positions[:, 0] + 1, blocks * BLOCK_SIZE)
        self.cross_mask = _cross_mask(cross_lengths, cache.device)
        self._cross_positions = max(cross_lengths)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new position, and read all positions up to it."""
        for kind, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self._cache.write(kind, self._indices, new[:, :, 0])
        return self._cache.read(2 * layer, self._tables), self._cache.read(2 * layer + 1, self._tables)

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the encoder's output, as prefill has written them."""
        slots, positions = self._slots, self._cross_positions
        return (
            self._cache.read_cross(2 * layer, slots, positions),
            self._cache.read_cross(2 * layer + 1, slots, positions),
        )


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the CPU they take memory only once they are written to, while ``torch.zeros`` takes it at once."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


def _indices(prompt: Prompt, longest: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Flat indices of the real positions: in the padded batch, and in the pool."""
    real, indices = [], []
    starts = prompt.starts or (0,) * len(prompt.lengths)
    for row, (table, start, length) in enumerate(zip(prompt.tables, starts, prompt.lengths, strict=True)):
        real += [row * longest + position for position in range(length)]
        positions = range(start, start + length)
        indices += [table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE for position in positions]
    return torch.tensor(real, device=device), torch.tensor(indices, device=device)


def _clamp_finite(values: Tensor) -> Tensor:
    """Replace NaN by 0, and bound the rest so that sums of products are finite; no sound value is that large."""
    bound = min(1e15, torch.finfo(values.dtype).max)
    return values.nan_to_num(nan=0.0, posinf=bound, neginf=-bound).clamp(-bound, bound)


def _table(tables: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Tables as int64 ``[rows, longest]``; shorter ones are padded with block 0."""
    longest = max(map(len, tables))
    return torch.tensor([[*table, *[0] * (longest - len(table))] for table in tables], device=device)


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
    return Sharing(*(torch.tensor(part, device=device) for part in (padded, list(slots), columns)))


def _cross_mask(lengths: Sequence[int], device: torch.device) -> Tensor | None:
    if not lengths or min(lengths) == max(lengths):
        return None
    return length_mask(torch.tensor(lengths, device=device), max(lengths))
