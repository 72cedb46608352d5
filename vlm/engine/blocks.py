"""Counts the KV cache: how many slots and blocks a budget buys, and which blocks are free. Pure Python, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from vlm.errors import ConfigError
from vlm.models.processor import CacheSpec

BLOCK_SIZE = 16
"""Number of positions in a block."""

EXPECTED_POSITIONS = 192
"""Number of positions that slots are planned for: an image of 64, a prompt, and an answer of about a hundred."""

MAX_BEAMS = 8
"""Maximum number of beams of one sequence; see :class:`~vlm.types.Sampling`."""


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What the budget buys: ``slots`` for running sequences and ``blocks`` to share among them.

    Attributes:
        slots: Maximum number of sequences that run at once; each has a cross-attention part of its own.
        blocks: Number of blocks of the KV cache, including block 0, which only padding uses.
        bytes: Memory that slots and blocks take together.
        num_beams: Number of beams that each sequence may have on average.
    """

    slots: int
    blocks: int
    bytes: int
    num_beams: int = 1

    def granted(self, max_batch: int) -> str:
        """What the budget has bought, as one line for the log."""
        return (
            f"{self.slots} slots, {self.blocks} blocks of {BLOCK_SIZE} positions ({self.bytes / 2**30:.1f} GiB); "
            f"max_batch asked for {max_batch}"
        )

    @property
    def rows(self) -> int:
        """Maximum number of beams, and so of rows in one step."""
        return max(self.slots * self.num_beams, MAX_BEAMS)

    @classmethod
    def fit(
        cls,
        spec: CacheSpec,
        element_size: int,
        budget: int,
        max_slots: int,
        num_beams: int = 1,
        *,
        expected: int = EXPECTED_POSITIONS,
    ) -> Self:
        """Plan for as many slots as the budget holds if sequences have the length that is expected of them.

        That is ``expected`` positions, or a quarter of the longest length where that is less. Longer ones take more
        blocks; if none are left, the newest sequence is preempted.

        Args:
            spec: The sizes of the model's keys and values.
            element_size: Bytes of one number of the model's dtype.
            budget: Bytes for keys and values, cross attention included.
            max_slots: Maximum number of slots to plan for.
            num_beams: Number of beams of a sequence whose client does not ask for another number.
            expected: Number of positions of a usual sequence: image, prompt and answer.

        Raises:
            ConfigError: The budget cannot hold one sequence of the longest length.
        """
        position = spec.bytes_per_position(element_size)
        cross, block = spec.cross_positions * position, BLOCK_SIZE * position
        full = blocks_for(spec.max_positions) + bool(spec.prefix_positions)  # a prefix's last block is copied
        least = cross + (full + 1) * block
        if budget < least:
            raise ConfigError(
                f"cache_bytes is {budget}, but one sequence of this model needs {least} bytes of KV cache.",
                param="cache_bytes",
            )
        slots = min(max_slots, max(1, budget // (cross + max(1, min(full // 4, blocks_for(expected))) * block)))
        while slots > 1 and budget - slots * cross < (full + 1) * block:
            slots -= 1
        blocks = min((budget - slots * cross) // block, slots * num_beams * full + 1)
        return cls(slots, blocks, slots * cross + blocks * block, num_beams)


def blocks_for(positions: int) -> int:
    """Number of blocks that hold ``positions`` positions."""
    return -(-positions // BLOCK_SIZE)


def longest_with_beams(blocks: int, prompt: int, beams: int) -> int:
    """Number of positions that each beam of a search can reach if there are ``blocks`` blocks.

    The whole blocks of the ``prompt`` positions are shared by the beams; the others are divided among them.
    """
    shared = prompt // BLOCK_SIZE
    return BLOCK_SIZE * (shared + max(0, blocks - shared) // beams)


class BlockPool:
    """Counts the holders of each block; a block is free again once each of them has given it back.

    ``free + used == total``. Block 0 is never given out, because shorter block tables are padded with it.
    """

    def __init__(self, blocks: int) -> None:
        """``blocks``: number of blocks, including block 0."""
        self.total = blocks - 1
        self._free = list(range(blocks - 1, 0, -1))
        self._holders = [0] * blocks

    @property
    def free(self) -> int:
        """Number of blocks without a holder."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Number of blocks with a holder."""
        return self.total - len(self._free)

    def take(self, count: int) -> list[int]:
        """Take ``count`` blocks, with one holder each; the caller has checked that so many are free."""
        assert count <= self.free, f"{count} blocks requested, {self.free} free"
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._holders[block] = 1
        return blocks

    def share(self, blocks: Sequence[int]) -> list[int]:
        """Add a holder to each of ``blocks``; returns them."""
        for block in blocks:
            assert self._holders[block] > 0, "a block without a holder was shared"
            self._holders[block] += 1
        return list(blocks)

    def holders(self, block: int) -> int:
        """Number of holders of a block."""
        return self._holders[block]

    def give_back(self, blocks: Sequence[int]) -> list[int]:
        """Take a holder from each of ``blocks``; returns those that are free now."""
        for block in blocks:
            assert self._holders[block] > 0, "a block was given back twice"
            self._holders[block] -= 1
        freed = [block for block in blocks if not self._holders[block]]
        self._free.extend(freed)
        return freed
