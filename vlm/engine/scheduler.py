"""Decides who runs: first come, first served, within rows and blocks. Pure Python, no tensors, no threads.

A running sequence has a slot, which holds its cross-attention part, and one beam, or one for each of its beams. Beams
are the rows of a decode step. Slots 0..m-1 and rows 0..n-1 have no holes, so that a step works on plain slices of its
buffers. When a sequence leaves, the last slot moves into its place, and beams take new rows; the runner follows.

Beams may hold blocks together: beams those that they have in common, and all questions about one image those of its
prefix. Before a beam writes into a block that others hold too, it gets a copy of its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vlm.engine.beams import Continuation
from vlm.engine.blocks import BLOCK_SIZE, BlockPool, blocks_for
from vlm.engine.prefix_cache import Prefix, PrefixCache
from vlm.engine.sequence import Beam, Sequence


@dataclass(frozen=True, slots=True)
class Move:
    """Slot ``source`` has become slot ``target``."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Copy:
    """What block ``source`` holds is to be in block ``target`` too."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Decode:
    """One more token for every running beam.

    Attributes:
        beams: Rows 0.., by slot.
        sources: The row of the last step that each of these rows goes on from.
        slots: The slot of each row.
        moves: To be applied in order, before anything else.
        copies: All sources are read before any target is written.
    """

    beams: tuple[Beam, ...]
    sources: tuple[int, ...]
    slots: tuple[int, ...]
    moves: tuple[Move, ...]
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class PrefixJob:
    """A prefix to be computed, and a sequence that has its image."""

    prefix: Prefix
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's work: the decode, and the sequences that join, which take the next slots and rows.

    ``prefixes`` are computed before ``copies`` are made of them, and both before the prompts of ``prefill``.
    """

    decode: Decode
    prefill: tuple[Sequence, ...]
    prefixes: tuple[PrefixJob, ...] = ()
    copies: tuple[Copy, ...] = ()


class Scheduler:
    """Waiting and running sequences, and the blocks that they hold."""

    def __init__(
        self, pool: BlockPool, rows: int, max_prefill: int, slots: int | None = None, *, keep_prefixes: bool = True
    ) -> None:
        """``slots``: most sequences that run at once, ``rows``: most beams.

        ``max_prefill``: most sequences that join in one step; it bounds how long the others' next token waits.
        """
        self.pool = pool
        self.rows = rows
        self.slots = rows if slots is None else slots
        self.max_prefill = max_prefill
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.prefixes = PrefixCache(pool, keep=keep_prefixes)
        self._moves: list[Move] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, finished or aborted, and free all that it holds; unknown ones are ignored."""
        if sequence.slot is not None:
            self._vacate(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def branch(self, sequence: Sequence, chosen: list[Continuation]) -> None:
        """Let the beams of a sequence go on as its search has ``chosen``, in the same rows."""
        before = sequence.beams
        sequence.beams = [
            self._continued(before[one.parent], one, beam.row) for one, beam in zip(chosen, before, strict=True)
        ]
        for beam in before:
            self.pool.give_back(beam.blocks)

    def schedule(self) -> Batch:
        """Grow the running, preempt the newest if blocks run out, let the first waiting join."""
        self.prefixes.begin()
        copies = self._grow()
        decode = self._decode(copies)
        joined, prefixes, prefix_copies = self._admit(len(decode.beams))
        return Batch(decode, tuple(joined), tuple(prefixes), tuple(prefix_copies))

    def _decode(self, copies: list[Copy]) -> Decode:
        beams = tuple(beam for sequence in self.running for beam in sequence.beams)
        slots = tuple(slot for slot, sequence in enumerate(self.running) for _ in sequence.beams)
        sources = tuple(beam.row for beam in beams)
        for row, beam in enumerate(beams):
            beam.row = row
        moves, self._moves = tuple(self._moves), []
        return Decode(beams, sources, slots, moves, tuple(copies))

    def _grow(self) -> list[Copy]:
        """Give each running beam the block of its next position for its own, the oldest sequences first."""
        copies: dict[int, Copy] = {}  # by target
        for sequence in sorted(self.running, key=lambda one: one.arrived):
            for beam in tuple(sequence.beams):
                while sequence.slot is not None and self._needs_block(beam):
                    if self._reserve(1):
                        self._extend(beam, copies)
                    else:
                        for block in self._preempt(max(self.running, key=lambda one: one.arrived)):
                            copies.pop(block, None)  # who wanted it is gone
        return list(copies.values())

    def _needs_block(self, beam: Beam) -> bool:
        place = (beam.length - 1) // BLOCK_SIZE
        return place >= len(beam.blocks) or self.pool.holders(beam.blocks[place]) > 1

    def _extend(self, beam: Beam, copies: dict[int, Copy]) -> None:
        (new,) = self.pool.take(1)
        if (beam.length - 1) // BLOCK_SIZE == len(beam.blocks):
            beam.blocks.append(new)
            return
        shared = beam.blocks[-1]
        beam.blocks[-1] = new
        self.pool.give_back([shared])
        copies[new] = Copy(shared, new)

    def _reserve(self, count: int, keep: Prefix | None = None) -> bool:
        """Whether so many blocks are free, if need be at the cost of prefixes that nobody uses, but for ``keep``."""
        return self.pool.free >= count or self.prefixes.evict(count, keep)

    def _preempt(self, sequence: Sequence) -> list[int]:
        """Back to the head of the queue: its blocks go to others, and it computes its keys and values again."""
        sequence.held = len({block for beam in sequence.beams for block in beam.blocks})
        freed = self._vacate(sequence)
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)
        return freed

    def _admit(self, rows: int) -> tuple[list[Sequence], list[PrefixJob], list[Copy]]:
        joined: list[Sequence] = []
        jobs: list[PrefixJob] = []
        copies: list[Copy] = []
        while self._has_place(rows, len(joined)):
            sequence = self.waiting.popleft()
            known = self._known_prefix(sequence)
            prefix = known
            if sequence.prefix and known is None:
                prefix = self.prefixes.add(sequence.image_key, sequence.prefix)
                jobs.append(PrefixJob(prefix, sequence))
            self._enter(sequence, rows, prefix, copies)
            rows += sequence.num_beams
            joined.append(sequence)
        return joined, jobs, copies

    def _has_place(self, rows: int, joined: int) -> bool:
        if not self.waiting or joined >= self.max_prefill or len(self.running) >= self.slots:
            return False
        first = self.waiting[0]
        if rows + first.num_beams > self.rows:
            return False
        known = self.prefixes.find(first.image_key) if first.prefix else None
        return self._reserve(_blocks_to_enter(first, known) + (_headroom(first, rows) if rows else 0), known)

    def _known_prefix(self, sequence: Sequence) -> Prefix | None:
        known = self.prefixes.find(sequence.image_key) if sequence.prefix else None
        if known is not None and sequence.note_image(cached=True):
            self.prefixes.hits += 1
        return known and self.prefixes.use(known)

    def _enter(self, sequence: Sequence, row: int, prefix: Prefix | None, copies: list[Copy]) -> None:
        blocks = [] if prefix is None else self.pool.share(prefix.blocks[: sequence.prefix // BLOCK_SIZE])
        blocks += self.pool.take(blocks_for(sequence.length) - len(blocks))
        if prefix is not None and sequence.prefix % BLOCK_SIZE:  # its last block goes on with the prompt
            copies.append(Copy(prefix.blocks[-1], blocks[len(prefix.blocks) - 1]))
        sequence.start_running()
        sequence.slot = len(self.running)
        self.running.append(sequence)
        for number, beam in enumerate(sequence.beams):
            beam.row = row + number
            beam.blocks = self.pool.share(blocks) if number else blocks

    def _continued(self, parent: Beam, one: Continuation, row: int) -> Beam:
        logprobs = [*parent.logprobs] if one.logprob is None else [*parent.logprobs, one.logprob]
        blocks = self.pool.share(parent.blocks)
        return Beam(parent.sequence, [*parent.generated, one.token], logprobs, blocks, row)

    def _vacate(self, sequence: Sequence) -> list[int]:
        """Take a sequence out of the running; returns the blocks that are free now."""
        assert sequence.slot is not None
        freed = [block for beam in sequence.beams for block in self.pool.give_back(beam.blocks)]
        last = self.running.pop()
        if last is not sequence:
            assert last.slot is not None
            self._moves.append(Move(last.slot, sequence.slot))
            last.slot = sequence.slot
            self.running[last.slot] = last
        sequence.stop_running()
        return freed


def _blocks_to_enter(sequence: Sequence, known: Prefix | None) -> int:
    """New blocks that a waiting sequence takes: its own, and its prefix's if that is not there yet."""
    shared = sequence.prefix // BLOCK_SIZE
    new = blocks_for(sequence.prefix) if sequence.prefix and known is None else 0
    return blocks_for(sequence.length) - shared + new


def _headroom(sequence: Sequence, rows: int) -> int:
    """Blocks to be left for the very next steps, so that who joins is not sent back at once.

    Beams part after their first token. Who was preempted comes back only where each running beam could grow, and a
    search, which starts anew, only where it could also hold what it held before.
    """
    if not sequence.preemptions:
        return sequence.num_beams - 1
    regrown = sequence.held - blocks_for(sequence.length) if sequence.num_beams > 1 else 0
    return rows + max(sequence.num_beams - 1, regrown)
