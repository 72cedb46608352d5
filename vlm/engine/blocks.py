"""Counts the KV cache: how many rows and blocks a budget buys, and which blocks are free. Pure Python, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from vlm.errors import ConfigError
from vlm.models.processor import CacheSpec

BLOCK_SIZE = 16
"""Positions in a block."""

MAX_BEAMS = 8
"""Beams that even a single sequence may have; see ``types.Sampling``."""


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What the budget buys: ``slots`` for running sequences and ``blocks`` to share among them.

    Attributes:
        slots: Maximum number of sequences that run at once; each has a cross-attention part of its own.
        blocks: Blocks of the KV cache, block 0 included.
        bytes: Memory that slots and blocks take together.
        num_beams: How many beams each sequence may have on average.
    """

    slots: int
    blocks: int
    bytes: int
    num_beams: int = 1

    @property
    def rows(self) -> int:
        """Maximum number of beams, and so of rows in one step."""
        return max(self.slots * self.num_beams, MAX_BEAMS)

    @classmethod
    def fit(cls, spec: CacheSpec, element_size: int, budget: int, max_slots: int, num_beams: int = 1) -> Self:
        """As many slots as the budget holds, up to ``max_slots``, counting on sequences of a quarter of full length.

        Args:
            spec: The model's.
            element_size: Bytes of one number.
            budget: Bytes for keys and values, cross attention included.
            max_slots: Maximum number of sequences to run at once.
            num_beams: Beams of a sequence whose client does not ask for another number.

        Raises:
            ConfigError: The budget cannot hold even one sequence of full length.
        """
        position = spec.bytes_per_position(element_size)
        cross, block = spec.cross_positions * position, BLOCK_SIZE * position
        full = blocks_for(spec.max_positions) + bool(spec.prefix_positions)  # whose last block is copied
        least = cross + (full + 1) * block
        if budget < least:
            raise ConfigError(
                f"cache_bytes is {budget}, but one sequence of this model needs {least} bytes of KV cache.",
                param="cache_bytes",
            )
        slots = min(max_slots, max(1, budget // (cross + max(1, full // 4) * block)))
        while slots > 1 and budget - slots * cross < (full + 1) * block:
            slots -= 1
        blocks = min((budget - slots * cross) // block, slots * num_beams * full + 1)
        return cls(slots, blocks, slots * cross + blocks * block, num_beams)


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
