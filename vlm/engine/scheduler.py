"""Decides who runs: first come, first served, within rows and blocks. Pure Python, no tensors, no threads.

Running sequences occupy rows 0..n-1 without holes, so that a decode step works on plain slices of its buffers. When one
leaves, the last row moves into its place; those moves are handed to the runner, in order, with the next batch.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vlm.engine.blocks import BlockPool, blocks_for
from vlm.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Move:
    """Row ``source`` has become row ``target``."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's work: apply ``moves`` in order, then prefill and decode.

    ``decode`` are rows 0.. and ``prefill`` the rows right after them, both in row order.
    """

    moves: tuple[Move, ...]
    prefill: tuple[Sequence, ...]
    decode: tuple[Sequence, ...]


class Scheduler:
    """Waiting and running sequences, and the blocks that they hold."""

    def __init__(self, pool: BlockPool, rows: int, max_prefill: int) -> None:
        """``max_prefill``: most sequences that join in one step; it bounds how long the others' next token waits."""
        self.pool = pool
        self.rows = rows
        self.max_prefill = max_prefill
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._moves: list[Move] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, finished or aborted, and free all that it holds; unknown ones are ignored."""
        if sequence.row is not None:
            self._vacate(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def schedule(self) -> Batch:
        """Grow the running, preempt the newest if blocks run out, let the first waiting join."""
        self._grow()
        decode = tuple(self.running)
        prefill = tuple(self._admit())
        moves, self._moves = tuple(self._moves), []
        return Batch(moves, prefill, decode)

    def _grow(self) -> None:
        """Give each running sequence the block of its next position, the oldest first."""
        for sequence in sorted(self.running, key=lambda one: one.arrived):
            while sequence.row is not None and self._missing(sequence):
                if self.pool.free >= self._missing(sequence):
                    sequence.blocks += self.pool.take(self._missing(sequence))
                else:
                    self._preempt(max(self.running, key=lambda one: one.arrived))

    def _missing(self, sequence: Sequence) -> int:
        return blocks_for(sequence.length) - len(sequence.blocks)

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the head of the queue: its blocks go to others, and it computes its keys and values again."""
        self._vacate(sequence)
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)

    def _admit(self) -> list[Sequence]:
        joined: list[Sequence] = []
        while self._has_place(len(joined)):
            sequence = self.waiting.popleft()
            sequence.blocks = self.pool.take(blocks_for(sequence.length))
            sequence.row = len(self.running)
            self.running.append(sequence)
            joined.append(sequence)
        return joined

    def _has_place(self, joined: int) -> bool:
        return (
            bool(self.waiting)
            and joined < self.max_prefill
            and len(self.running) < self.rows
            and blocks_for(self.waiting[0].length) <= self.pool.free
        )

    def _vacate(self, sequence: Sequence) -> None:
        assert sequence.row is not None
        self.pool.give_back(sequence.blocks)
        last = self.running.pop()
        if last is not sequence:
            assert last.row is not None
            self._moves.append(Move(last.row, sequence.row))
            last.row = sequence.row
            self.running[last.row] = last
        sequence.row, sequence.blocks = None, []
