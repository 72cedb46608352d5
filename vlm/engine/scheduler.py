"""Decides which sequences run, within slots, rows and blocks. Pure Python, no threads.

A running sequence has a slot, for its cross-attention part, and one beam, or ``num_beams`` of them; a beam is a row of
the step::

    running   [seq 0, seq 1, seq 2]                   slots [0, m), without holes
    beams     [seq 0 | seq 1, seq 1, seq 1 | seq 2]   rows [0, n), in the order of the slots, without holes

so that a step works on plain slices of its buffers. When a sequence ends, the one in the last slot moves into its slot,
and all beams get new rows; the runner moves what the device holds accordingly.

Several beams may hold one block: those of one search share the blocks that they have in common, and all questions about
one image share those of its prefix. A beam's blocks hold positions ``[0, length)``::

    [0, prefix)              the image, if the model puts one before the prompt; whole blocks are shared
    [prefix, length - 1)     the prompt and the generated tokens, computed
    length - 1               the last generated token, which the next step reads and writes

Before a beam writes into a block that other beams hold too, it gets a copy of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from vlm.engine.beams import Continuation
from vlm.engine.blocks import BLOCK_SIZE, BlockPool, blocks_for
from vlm.engine.prefix_cache import Prefix, PrefixCache
from vlm.engine.sequence import Beam, Sequence
from vlm.engine.waiting import WaitingQueue, rank_at

GATHERED = 8
"""Sequences that are not streamed start together: one for each so many that run, because a start delays all of these,
and several starts in one step take little longer than one."""

PATIENCE = 4
"""Maximum number of steps for which sequences that could start wait for others, until all of them have started."""


@dataclass(frozen=True, slots=True)
class Move:
    """The sequence in slot ``source`` is now in slot ``target``."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Copy:
    """The contents of block ``source`` are to be copied to block ``target``."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Decode:
    """One more token for every running beam.

    Attributes:
        beams: One a row, in the order of their slots.
        sources: For each row, the row of the last step that it continues.
        slots: For each row, its slot.
        moves: Moves of slots, to be applied in this order before anything else.
        copies: Copies of blocks; all sources are read before any target is written.
    """

    beams: tuple[Beam, ...]
    sources: tuple[int, ...]
    slots: tuple[int, ...]
    moves: tuple[Move, ...]
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class PrefixJob:
    """A prefix to compute, and a sequence that has its image."""

    prefix: Prefix
    sequence: Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """The work of one step: sequences that run get a token, and others start in the slots and rows after theirs.

    Attributes:
        decode: For the sequences that run.
        prefill: The sequences that start.
        prefixes: Image prefixes to compute first.
        copies: Copies of blocks to make then, before the prompts of ``prefill`` are computed.
    """

    decode: Decode
    prefill: tuple[Sequence, ...]
    prefixes: tuple[PrefixJob, ...] = ()
    copies: tuple[Copy, ...] = ()


class Scheduler:
    """Waiting and running sequences, and the blocks that they hold."""

    def __init__(
        self,
        pool: BlockPool,
        rows: int,
        max_prefill: int,
        slots: int | None = None,
        *,
        keep_prefixes: bool = True,
        slot_reserve: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start with no sequences.

        Args:
            pool: The KV cache's blocks.
            rows: Maximum number of beams in one step.
            max_prefill: Maximum number of sequences that start in one step, which bounds how long the next token of
                the others is delayed.
            slots: Maximum number of sequences that run at once; ``rows`` by default.
            keep_prefixes: Whether image prefixes stay in the cache for later questions.
            slot_reserve: See :class:`~vlm.engine.config.EngineConfig`.
            clock: In seconds; that by which sequences say when they came.
        """
        self.pool = pool
        self.rows = rows
        self.slots = rows if slots is None else slots
        self.max_prefill = max_prefill
        self.waiting = WaitingQueue(self.slots, self.rows, clock, slot_reserve=slot_reserve)
        self._clock = clock
        self.running: list[Sequence] = []
        self.prefixes = PrefixCache(pool, keep=keep_prefixes)
        self.preemptions = 0
        self._moves: list[Move] = []
        self._gathering = 0  # steps for which those that could start have waited for others

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has finished or was aborted and free all that it holds; ignores unknown ones."""
        if sequence.slot is not None:
            self._vacate(sequence)
        else:
            self.waiting.discard(sequence)

    def branch(self, sequence: Sequence, chosen: list[Continuation]) -> None:
        """Continue the beams of a sequence as its search has ``chosen``, in the same rows."""
        before = sequence.beams
        sequence.beams = [
            self._continued(before[one.parent], one, beam.row) for one, beam in zip(chosen, before, strict=True)
        ]
        for beam in before:
            self.pool.give_back(beam.blocks)

    def schedule(self) -> Batch:
        """Give running beams the blocks they need, preempting others if there are none, then start waiting ones.

        Those of a batch are preempted first, and of equals the newest.
        """
        self.prefixes.begin()
        copies = self._grow()
        decode = self._decode(copies)
        if self._gathers():
            return Batch(decode, ())
        started, prefixes, prefix_copies = self._admit(len(decode.beams))
        if not self._ready:  # otherwise a step could not start them all, and they are not to wait for others again
            self._gathering = 0
        return Batch(decode, tuple(started), tuple(prefixes), tuple(prefix_copies))

    @property
    def _ready(self) -> int:
        """Number of sequences that wait and have a slot."""
        return self.waiting.startable(self.slots - len(self.running))

    def _gathers(self) -> bool:
        """Whether those that wait are to start in a later step, with others that may come."""
        few = 0 < self._ready < len(self.running) // GATHERED
        gathers = few and self._gathering < PATIENCE and not any(one.stream for one in self.waiting)
        self._gathering += gathers
        return gathers

    def _decode(self, copies: list[Copy]) -> Decode:
        beams = tuple(beam for sequence in self.running for beam in sequence.beams)
        slots = tuple(slot for slot, sequence in enumerate(self.running) for _ in sequence.beams)
        sources = tuple(beam.row for beam in beams)
        for row, beam in enumerate(beams):
            beam.row = row
        moves, self._moves = tuple(self._moves), []
        return Decode(beams, sources, slots, moves, tuple(copies))

    def _grow(self) -> list[Copy]:
        """Give each running beam a block of its own for position ``length - 1``, the oldest sequences first.

        The last in this order is preempted where there are no blocks, so that the first always makes progress.
        """
        copies: dict[int, Copy] = {}  # by target
        rank = rank_at(self._clock())
        for sequence in sorted(self.running, key=rank):
            for beam in tuple(sequence.beams):
                while sequence.slot is not None and self._needs_block(beam):
                    if self._reserve(1):
                        self._extend(beam, copies)
                    else:
                        for block in self._preempt(max(self.running, key=rank)):
                            copies.pop(block, None)  # the beam that it was copied for is preempted
        return list(copies.values())

    def _needs_block(self, beam: Beam) -> bool:
        index = (beam.length - 1) // BLOCK_SIZE
        return index >= len(beam.blocks) or self.pool.holders(beam.blocks[index]) > 1

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
        """Whether ``count`` blocks are free, if need be after evicting unused prefixes other than ``keep``."""
        return self.pool.free >= count or self.prefixes.evict(count, keep)

    def _preempt(self, sequence: Sequence) -> list[int]:
        """Move a sequence to the head of the queue and free its blocks; it will compute its keys and values again."""
        sequence.held = len({block for beam in sequence.beams for block in beam.blocks})
        freed = self._vacate(sequence)
        sequence.preemptions += 1
        self.preemptions += 1
        self.waiting.add_preempted(sequence)
        return freed

    def _admit(self, rows: int) -> tuple[list[Sequence], list[PrefixJob], list[Copy]]:
        """Start waiting sequences in the rows from ``rows`` on, as far as there is room."""
        started: list[Sequence] = []
        jobs: list[PrefixJob] = []
        copies: list[Copy] = []
        work = 0
        while (sequence := self._next(rows, work)) is not None:
            known = self._known_prefix(sequence)
            work += _prefill_work(sequence, known)
            prefix = known
            if sequence.prefix and known is None:
                prefix = self.prefixes.add(sequence.image_key, sequence.prefix)
                jobs.append(PrefixJob(prefix, sequence))
            self._start(sequence, rows, prefix, copies)
            rows += sequence.num_beams
            started.append(sequence)
        return started, jobs, copies

    def _next(self, rows: int, work: int) -> Sequence | None:
        """The sequence that starts next, or None if none may or there is no room for it: no other overtakes it."""
        first = self.waiting.next() if len(self.running) < self.slots else None
        return first if first is not None and self._has_room(first, rows, work) else None

    def _has_room(self, first: Sequence, rows: int, work: int) -> bool:
        """``work``: that of the sequences which start in this step already."""
        if rows + first.num_beams > self.rows:
            return False
        known = self.prefixes.find(first.image_key) if first.prefix else None
        if work and work + _prefill_work(first, known) > self.max_prefill:
            return False
        return self._reserve(_blocks_to_start(first, known) + (_headroom(first, rows) if rows else 0), known)

    def _known_prefix(self, sequence: Sequence) -> Prefix | None:
        known = self.prefixes.find(sequence.image_key) if sequence.prefix else None
        if known is not None and sequence.note_image(cached=True):
            self.prefixes.hits += 1
        return known and self.prefixes.use(known)

    def _start(self, sequence: Sequence, row: int, prefix: Prefix | None, copies: list[Copy]) -> None:
        blocks = [] if prefix is None else self.pool.share(prefix.blocks[: sequence.prefix // BLOCK_SIZE])
        blocks += self.pool.take(blocks_for(sequence.length) - len(blocks))
        if prefix is not None and sequence.prefix % BLOCK_SIZE:  # the prompt begins in its last block
            copies.append(Copy(prefix.blocks[-1], blocks[len(prefix.blocks) - 1]))
        self.waiting.started(sequence)
        sequence.start_running()
        sequence.slot = len(self.running)
        self.running.append(sequence)
        for number, beam in enumerate(sequence.beams):
            beam.row = row + number
            beam.blocks = self.pool.share(blocks) if number else blocks

    def _continued(self, parent: Beam, one: Continuation, row: int) -> Beam:
        logprobs = [*parent.logprobs] if one.logprob is None else [*parent.logprobs, one.logprob]
        blocks = self.pool.share(parent.blocks)
        likeliest = [*parent.likeliest, one.likeliest]
        return Beam(parent.sequence, [*parent.generated, one.token], logprobs, blocks, row, likeliest)

    def _vacate(self, sequence: Sequence) -> list[int]:
        """Take a sequence out of its slot; returns the blocks that this has freed."""
        assert sequence.slot is not None
        freed = [block for beam in sequence.beams for block in self.pool.give_back(beam.blocks)]
        last = self.running.pop()
        if last is not sequence:
            assert last.slot is not None
            self._moves.append(Move(last.slot, sequence.slot))
            last.slot = sequence.slot
            self.running[last.slot] = last
        self.waiting.stopped(sequence)
        sequence.stop_running()
        return freed


def _prefill_work(sequence: Sequence, known: Prefix | None) -> int:
    """What starting a sequence counts against ``max_prefill``: 1, or the crops of its image if they are to be encoded.

    An image of 13 crops delays the next token of the others as much as 13 images of one.
    """
    return sequence.inputs.crops if known is None else 1


def _blocks_to_start(sequence: Sequence, known: Prefix | None) -> int:
    """Number of new blocks that a waiting sequence takes: its own, and its prefix's if that is not cached."""
    shared = sequence.prefix // BLOCK_SIZE
    new = blocks_for(sequence.prefix) if sequence.prefix and known is None else 0
    return blocks_for(sequence.length) - shared + new


def _headroom(sequence: Sequence, rows: int) -> int:
    """Number of blocks to leave free for the next steps, so that a sequence that starts is not preempted at once.

    Its beams diverge after their first token. If it was preempted, it starts again only when every running beam could
    take another block, and a search, which starts from scratch, only when it could also hold what it held before.
    """
    if not sequence.preemptions:
        return sequence.num_beams - 1
    regrown = sequence.held - blocks_for(sequence.length) if sequence.num_beams > 1 else 0
    return rows + max(sequence.num_beams - 1, regrown)
