"""Keys and values on the device: blocks of positions that sequences share out, and one cross-attention part a slot.

    self attention    pool[layer][block][position in block][head]    a row's table lists its blocks in order
    cross attention   cross[layer][slot][head][position]             slots 0..m-1 run, so a batch is a slice

Beams have a row each, but the slot and most blocks in common. The contexts of this module are what the layers talk to:
:class:`PrefillContext` computes from nothing and writes down, :class:`ExtendContext` goes on after a prefix, and
:class:`DecodeContext` adds one position a row and reads back. Tables and lengths of a decode step live in
buffers that are allocated once, so that the step's shapes and addresses can be captured in a CUDA graph.
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
        """Slot ``source`` has become slot ``target``. Blocks stay where they are."""
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
        """A context that computes whole prompts and writes them down.

        ``cross`` computes the cross-attention keys and values of a layer, ``[batch, heads, positions, head_dim]``.
        """
        if any(prompt.starts):
            assert cross is None, "no model has both a prefix and cross attention"
            return ExtendContext(self, prompt)
        if cross is not None:
            self._cross_lengths[prompt.slot : prompt.slot + len(prompt.lengths)] = prompt.encoded_lengths
        return PrefillContext(self, prompt, cross)

    def decode(self, tables: Sequence[Sequence[int]], positions: Sequence[int], slots: Sequence[int]) -> DecodeContext:
        """A context for one new position in each of the rows 0..n-1.

        Args:
            tables: Each row's blocks.
            positions: Where each row's new token stands.
            slots: Each row's slot; all of 0..m-1, in order.
        """
        rows, longest = len(tables), max(map(len, tables))
        self._tables[:rows, :longest].copy_(_table(tables, torch.device("cpu")))
        self._positions[:rows, 0].copy_(torch.tensor(positions))
        sharing = _sharing(slots, self.device) if self._cross else None
        return DecodeContext(self, rows, longest, self._cross_lengths[: slots[-1] + 1], sharing)

    def write(self, kind: int, places: Tensor, values: Tensor) -> None:
        """Put ``values`` ``[n, heads, head_dim]`` at flat ``places`` ``[n]`` of one layer's keys or values.

        A mask gives what a place held before the weight 0, but 0 times NaN is NaN, and so is a product that overflows:
        so that an overflow in one answer never reaches the next owner of its blocks, neither is written.
        """
        self._pool[kind].flatten(0, 1).index_copy_(0, places, _tame(values))

    def read(self, kind: int, tables: Tensor) -> Tensor:
        """Blocks ``tables`` ``[rows, blocks]`` as ``[rows, heads, positions, head_dim]``."""
        blocks = self._pool[kind].index_select(0, tables.flatten())
        return blocks.view(len(tables), -1, *blocks.shape[2:]).transpose(1, 2)

    def write_cross(self, kind: int, slot: int, values: Tensor) -> None:
        """Put ``[batch, heads, positions, head_dim]`` into the slots from ``slot`` on."""
        self._cross[kind][slot : slot + len(values), :, : values.shape[2]] = _tame(values)

    def read_cross(self, kind: int, slots: int, positions: int) -> Tensor:
        """The first ``slots`` slots and ``positions`` positions: a view, nothing is copied."""
        return self._cross[kind][:slots, :, :positions]

    def batch_tables(self, rows: int, blocks: int) -> Tensor:
        """The tables that :meth:`decode` wrote, int64 ``[rows, blocks]``."""
        return self._tables[:rows, :blocks]

    def batch_positions(self, rows: int) -> Tensor:
        """The positions that :meth:`decode` wrote, int64 ``[rows, 1]``."""
        return self._positions[:rows]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Where a batch of prompts goes.

    Attributes:
        slot: The first of their consecutive slots.
        tables: Each one's blocks.
        lengths: Each one's positions.
        encoded_lengths: Each one's encoder output; empty without cross attention.
        starts: Positions that each one's blocks already hold, its prefix; empty where none does.
        causal: Whether a position sees only those before it.
    """

    slot: int
    tables: Sequence[Sequence[int]]
    lengths: Sequence[int]
    encoded_lengths: Sequence[int] = ()
    starts: Sequence[int] = ()
    causal: bool = True


class PrefillContext:
    """Whole prompts, right-padded: what they compute is written to the cache on the way."""

    sharing: Sharing | None = None

    def __init__(self, cache: KVCache, prompt: Prompt, cross: CrossKeysValues | None) -> None:
        longest, device = max(prompt.lengths), cache.device
        self._cache = cache
        self._slot = prompt.slot
        self._cross = cross
        self._real, self._places = _places(prompt, longest, device)
        self.positions = torch.arange(longest, device=device).unsqueeze(0)
        # Padding stands on the right, so no real query ever sees it.
        causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        self.mask = causal[None, None] if longest > 1 and prompt.causal else None
        self.cross_mask = _cross_mask(prompt.encoded_lengths, device)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write down the real positions; the queries see what was just computed."""
        for kind, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self._cache.write(kind, self._places, new.transpose(1, 2).flatten(0, 1)[self._real])
        return keys, values

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Compute the layer's part from the encoder's output and write it down."""
        assert self._cross is not None, "the model has cross attention but embed() gave no encoder output"
        keys, values = self._cross(layer)
        self._cache.write_cross(2 * layer, self._slot, keys)
        self._cache.write_cross(2 * layer + 1, self._slot, values)
        return keys, values


class ExtendContext:
    """Prompts that go on after a prefix which their blocks already hold, right-padded and causal."""

    cross_mask: Tensor | None = None
    sharing: Sharing | None = None

    def __init__(self, cache: KVCache, prompt: Prompt) -> None:
        longest, device = max(prompt.lengths), cache.device
        self._cache = cache
        self._real, self._places = _places(prompt, longest, device)
        self._tables = _table(prompt.tables, device)
        starts = torch.tensor(prompt.starts, device=device)
        self.positions = starts[:, None] + torch.arange(longest, device=device)
        keys = torch.arange(self._tables.shape[1] * BLOCK_SIZE, device=device)
        self.mask = (keys <= self.positions[..., None])[:, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write down the real positions and read back everything up to them."""
        for kind, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self._cache.write(kind, self._places, new.transpose(1, 2).flatten(0, 1)[self._real])
        return self._cache.read(2 * layer, self._tables), self._cache.read(2 * layer + 1, self._tables)

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """Models with a prefix have none."""
        raise NotImplementedError(f"layer {layer} has no cross attention")


class DecodeContext:
    """One new position in each of the rows 0..n-1, which sees all before it."""

    def __init__(
        self, cache: KVCache, rows: int, blocks: int, cross_lengths: Sequence[int], sharing: Sharing | None
    ) -> None:
        self._cache = cache
        self._slots = len(cross_lengths)
        self.sharing = sharing
        self._tables = cache.batch_tables(rows, blocks)
        self.positions = cache.batch_positions(rows)
        block, offset = self.positions // BLOCK_SIZE, self.positions % BLOCK_SIZE
        self._places = (self._tables.gather(1, block) * BLOCK_SIZE + offset)[:, 0]
        self.mask = length_mask(self.positions[:, 0] + 1, blocks * BLOCK_SIZE)
        self.cross_mask = _cross_mask(cross_lengths, cache.device)
        self._cross_positions = max(cross_lengths)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new position and read back everything up to it."""
        for kind, new in ((2 * layer, keys), (2 * layer + 1, values)):
            self._cache.write(kind, self._places, new[:, :, 0])
        return self._cache.read(2 * layer, self._tables), self._cache.read(2 * layer + 1, self._tables)

    def cross(self, layer: int) -> tuple[Tensor, Tensor]:
        """As prefill wrote it."""
        slots, positions = self._slots, self._cross_positions
        return (
            self._cache.read_cross(2 * layer, slots, positions),
            self._cache.read_cross(2 * layer + 1, slots, positions),
        )


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the CPU they take memory only once they are written to, which ``torch.zeros`` does at once."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


def _places(prompt: Prompt, longest: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of the real positions in the padded batch, and their flat places in the pool."""
    real, places = [], []
    starts = prompt.starts or (0,) * len(prompt.lengths)
    for row, (table, start, length) in enumerate(zip(prompt.tables, starts, prompt.lengths, strict=True)):
        real += [row * longest + position for position in range(length)]
        positions = range(start, start + length)
        places += [table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE for position in positions]
    return torch.tensor(real, device=device), torch.tensor(places, device=device)


def _tame(values: Tensor) -> Tensor:
    """Without NaN, and small enough that sums of products are numbers; of what is sound, nothing is that large."""
    most = min(1e15, torch.finfo(values.dtype).max)
    return values.nan_to_num(nan=0.0, posinf=most, neginf=-most).clamp(-most, most)


def _table(tables: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Blocks int64 ``[rows, most]``; shorter tables are filled up with block 0."""
    longest = max(map(len, tables))
    return torch.tensor([[*table, *[0] * (longest - len(table))] for table in tables], device=device)


def _sharing(slots: Sequence[int], device: torch.device) -> Sharing | None:
    """Which rows share a slot; None where each has its own."""
    if len(slots) == slots[-1] + 1:
        return None
    rows: list[list[int]] = [[] for _ in range(slots[-1] + 1)]
    places = []
    for row, slot in enumerate(slots):
        places.append(len(rows[slot]))
        rows[slot].append(row)
    most = max(map(len, rows))
    full = [[*group, *group[:1] * (most - len(group))] for group in rows]
    return Sharing(*(torch.tensor(part, device=device) for part in (full, list(slots), places)))


def _cross_mask(lengths: Sequence[int], device: torch.device) -> Tensor | None:
    if not lengths or min(lengths) == max(lengths):
        return None
    return length_mask(torch.tensor(lengths, device=device), max(lengths))
