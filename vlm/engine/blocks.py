"""Counts the KV cache: how many rows and blocks a budget buys, and which blocks are free. Pure Python, no tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from vlm.types import CheckpointError

BLOCK_SIZE = 16
"""Positions in a block."""


class Sized(Protocol):
    """What is needed of a model's cache spec to count its memory; see ``models.base.CacheSpec``."""

    @property
    def max_positions(self) -> int: ...
    @property
    def cross_positions(self) -> int: ...
    def bytes_per_position(self, element_size: int) -> int: ...


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What the budget buys: ``rows`` sequences at once (each with its cross-attention part) and ``blocks`` to share."""

    rows: int
    blocks: int
    bytes: int

    @classmethod
    def fit(cls, spec: Sized, element_size: int, budget: int, max_rows: int) -> Self:
        """As many rows as the budget holds, up to ``max_rows``, counting on sequences of a quarter of full length.

        Args:
            spec: The model's.
            element_size: Bytes of one number.
            budget: Bytes for keys and values, cross attention included.
            max_rows: Most sequences to run at once.

        Raises:
            CheckpointError: The budget cannot hold even one sequence of full length.
        """
        position = spec.bytes_per_position(element_size)
        cross, block = spec.cross_positions * position, BLOCK_SIZE * position
        full = blocks_for(spec.max_positions)
        least = cross + (full + 1) * block
        if budget < least:
            raise CheckpointError(
                f"cache_bytes is {budget}, but one sequence of this model needs {least} bytes of KV cache.",
                param="cache_bytes",
            )
        rows = min(max_rows, max(1, budget // (cross + max(1, full // 4) * block)))
        while rows > 1 and budget - rows * cross < (full + 1) * block:
            rows -= 1
        blocks = min((budget - rows * cross) // block, rows * full + 1)
        return cls(rows, blocks, rows * cross + blocks * block)


def blocks_for(positions: int) -> int:
    """Blocks that hold so many positions."""
    return -(-positions // BLOCK_SIZE)


class BlockPool:
    """The free list. Block 0 is never given out: rows that only pad a batch write there."""

    def __init__(self, blocks: int) -> None:
        self.total = blocks - 1
        self._free = list(range(blocks - 1, 0, -1))

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that sequences hold."""
        return self.total - len(self._free)

    def take(self, count: int) -> list[int]:
        """``count`` blocks; the caller has checked that so many are free."""
        assert count <= self.free, f"{count} blocks asked, {self.free} free"
        return [self._free.pop() for _ in range(count)]

    def give_back(self, blocks: list[int]) -> None:
        """Return blocks that :meth:`take` gave."""
        self._free.extend(blocks)
        assert self.free <= self.total, "a block was given back twice"
