"""The order in which waiting sequences start: fair between callers, first come, first served for each. Pure Python.

::

    preempted      [seq 2]               they had started, and go on before any other starts
    caller a       [seq 3, seq 5]        1 place is running
    caller b       [seq 4, seq 6]        nothing is running: seq 4 is next
    caller b batch [seq 1]               waits until none of the others does, or until it has waited long enough

The next sequence to start is the first preempted one. If there is none, it is the first one of the caller that has the
fewest places running; among equals, the one that has waited longest. So one caller alone is served first come, first
served. No caller starves: what it has running ends, and then only sequences that have waited longer go first.

Sequences of a batch, for which nobody waits at a screen, come after all of these, among themselves in the same order.
They do not starve either: one that came BATCH_AGES_S ago takes its turn with the others. A caller's batch and the rest
of what it asks take turns as if they were of two callers.

Of several callers, and of batches beside other requests, each leaves some slots to the others (:mod:`.reserve`): whose
turn it is and who has as many as that is passed over. Preempted ones had their slot, and are not held back.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain

from vlm.engine.reserve import Reserve
from vlm.engine.sequence import Sequence
from vlm.generations import places_for

BATCH_AGES_S = 20.0
"""Seconds after which a sequence of a batch no longer yields to others: a sixth of the time that a request has, so that
it is answered in time even where others never leave room."""

_Turn = tuple[str | None, bool]  # a caller, and whether it is its batch


class WaitingQueue:
    """The sequences that wait, and how many places each caller has running.

    Adding and removing take constant time; finding the next takes time for each caller that waits.
    """

    def __init__(
        self, slots: int, rows: int, clock: Callable[[], float] = time.perf_counter, *, slot_reserve: int = 0
    ) -> None:
        """No sequence waits or runs; for the arguments, see :class:`~vlm.engine.scheduler.Scheduler`."""
        self._reserve = Reserve(slots, slot_reserve, clock)
        self._slots = slots
        self._rows = rows
        self._clock = clock
        self._preempted: OrderedDict[Sequence, None] = OrderedDict()
        self._queues: dict[_Turn, OrderedDict[Sequence, int]] = {}  # none of them empty
        self._running: dict[_Turn, int] = {}  # places, none of them 0
        self._added = 0

    def __len__(self) -> int:
        """Number of sequences that wait; any thread may ask."""
        return len(self._preempted) + sum(map(len, tuple(self._queues.values())))

    def __bool__(self) -> bool:
        return bool(self._preempted or self._queues)

    def __iter__(self) -> Iterator[Sequence]:
        """Preempted ones first, then each caller's in their order."""
        return chain(self._preempted, *self._queues.values())

    def add(self, sequence: Sequence) -> None:
        """Add one that has never run, behind the others of its caller."""
        self._reserve.asked(sequence.caller, batch=sequence.batch)
        self._added += 1
        self._queues.setdefault(_turn_of(sequence), OrderedDict())[sequence] = self._added

    def add_preempted(self, sequence: Sequence) -> None:
        """Add one that has just been preempted, before all others."""
        self._preempted[sequence] = None
        self._preempted.move_to_end(sequence, last=False)

    def discard(self, sequence: Sequence) -> None:
        """Remove a sequence; ignores one that does not wait."""
        self._preempted.pop(sequence, None)
        turn = _turn_of(sequence)
        queue = self._queues.get(turn)
        if queue is not None and queue.pop(sequence, 0) and not queue:
            del self._queues[turn]

    def next(self) -> Sequence | None:
        """The next sequence to start; None if none waits, or all that wait leave the free slots to others."""
        now = self._clock()
        return self._first(lambda one: not yields(one, now)) or self._first(lambda one: yields(one, now))

    def startable(self, free: int) -> int:
        """Number of sequences that could start in so many free slots."""
        left = (
            min(len(queue), self._reserve.left(caller, batch=batch)) for (caller, batch), queue in self._queues.items()
        )
        return min(free, len(self._preempted) + sum(max(0, one) for one in left))

    def started(self, sequence: Sequence) -> None:
        """A sequence has left the queue and runs."""
        self.discard(sequence)
        self._count(sequence, 1)

    def stopped(self, sequence: Sequence) -> None:
        """A sequence runs no more."""
        self._count(sequence, -1)
        self._reserve.asked(sequence.caller, batch=sequence.batch)

    def _first(self, may: Callable[[Sequence], bool]) -> Sequence | None:
        """The next one of those that ``may`` start."""
        for preempted in self._preempted:
            if may(preempted):
                return preempted
        heads = {turn: next(iter(queue)) for turn, queue in self._queues.items()}
        turns = [turn for turn, head in heads.items() if may(head) and self._has_left(head)]
        return heads[min(turns, key=self._order)] if turns else None

    def _has_left(self, head: Sequence) -> bool:
        """One of a batch that has waited long is like any other."""
        return self._reserve.left(head.caller, batch=yields(head, self._clock())) > 0

    def _order(self, turn: _Turn) -> tuple[int, int]:
        """The smallest of these is next: places that it has running, number of its first sequence."""
        return self._running.get(turn, 0), next(iter(self._queues[turn].values()))

    def _count(self, sequence: Sequence, sign: int) -> None:
        places, turn = places_for(sequence.num_beams, self._slots, self._rows), _turn_of(sequence)
        self._reserve.runs(sequence.caller, sign * places, batch=sequence.batch)
        running = self._running.pop(turn, 0) + sign * places
        if running:
            self._running[turn] = running


def yields(sequence: Sequence, now: float) -> bool:
    """Whether others go before it, because it is of a batch and has not waited long."""
    return sequence.batch and now - sequence.arrived < BATCH_AGES_S


def rank_at(now: float) -> Callable[[Sequence], tuple[bool, float]]:
    """What orders sequences at this time: those that yield come last, and then the newest."""
    return lambda one: (yields(one, now), one.arrived)


def _turn_of(sequence: Sequence) -> _Turn:
    return sequence.caller, sequence.batch
