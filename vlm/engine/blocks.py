"""Counts the KV cache: how many rows and blocks a budget buys, and which blocks are free. Pure Python, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from vlm.errors import CheckpointError

BLOCK_SIZE = 16
"""Positions in a block."""

MAX_BEAMS = 8
"""Beams that even a single sequence may have; see ``types.Sampling``."""


class Sized(Protocol):
    """What is needed of a model's cache spec to count its memory; see ``models.base.CacheSpec``."""

    @property
    def max_positions(self) -> int: ...
    @property
    def cross_positions(self) -> int: ...
    @property
    def prefix_positions(self) -> int: ...
    def bytes_per_position(self, element_size: int) -> int: ...


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What the budget buys: ``rows`` sequences at once (each with its cross-attention part) and ``blocks`` to share.

    A sequence has as many lanes as it has beams; ``beams`` is how many each of them may have on average.
    """

    rows: int
    blocks: int
    bytes: int
    beams: int = 1

    @property
    def lanes(self) -> int:
        """Most rows of a step."""
        return max(self.rows * self.beams, MAX_BEAMS)

    @classmethod
    def fit(cls, spec: Sized, element_size: int, budget: int, max_rows: int, beams: int = 1) -> Self:
        """As many rows as the budget holds, up to ``max_rows``, counting on sequences of a quarter of full length.

        Args:
            spec: The model's.
            element_size: Bytes of one number.
            budget: Bytes for keys and values, cross attention included.
            max_rows: Most sequences to run at once.
            beams: That a sequence has unless its client says otherwise.

        Raises:
            CheckpointError: The budget cannot hold even one sequence of full length.
        """
        position = spec.bytes_per_position(element_size)
        cross, block = spec.cross_positions * position, BLOCK_SIZE * position
        full = blocks_for(spec.max_positions) + bool(spec.prefix_positions)  # whose last block is copied
        least = cross + (full + 1) * block
        if budget < least:
            raise CheckpointError(
                f"cache_bytes is {budget}, but one sequence of this model needs {least} bytes of KV cache.",
                param="cache_bytes",
            )
        rows = min(max_rows, max(1, budget // (cross + max(1, full // 4) * block)))
        while rows > 1 and budget - rows * cross < (full + 1) * block:
            rows -= 1
        blocks = min((budget - rows * cross) // block, rows * beams * full + 1)
        return cls(rows, blocks, rows * cross + blocks * block, beams)


def blocks_for(positions: int) -> int:
    """Blocks that hold so many positions."""
    return -(-positions // BLOCK_SIZE)


def longest_with_beams(blocks: int, prompt: int, beams: int) -> int:
    """Positions that each beam can reach after a prompt of that length, if there are no more than these blocks."""
    shared = prompt // BLOCK_SIZE
    return BLOCK_SIZE * (shared + max(0, blocks - shared) // beams)


class BlockPool:
    """Who holds which block. Several may hold one: it is free again once all have given it back.

    Block 0 is never given out: rows that only pad a batch write there.
    """

    def __init__(self, blocks: int) -> None:
        self.total = blocks - 1
        self._free = list(range(blocks - 1, 0, -1))
        self._holders = [0] * blocks

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.total - len(self._free)

    def take(self, count: int) -> list[int]:
        """``count`` blocks, each with one holder; the caller has checked that so many are free."""
        assert count <= self.free, f"{count} blocks asked, {self.free} free"
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._holders[block] = 1
        return blocks

    def share(self, blocks: Sequence[int]) -> list[int]:
        """The same blocks for one more holder."""
        for block in blocks:
            assert self._holders[block] > 0, "a block that nobody holds was shared"
            self._holders[block] += 1
        return list(blocks)

    def holders(self, block: int) -> int:
        """How many hold a block."""
        return self._holders[block]

    def give_back(self, blocks: Sequence[int]) -> list[int]:
        """One holder has done with these; returns those that are free now."""
        for block in blocks:
            assert self._holders[block] > 0, "a block was given back twice"
            self._holders[block] -= 1
        freed = [block for block in blocks if not self._holders[block]]
        self._free.extend(freed)
        return freed
