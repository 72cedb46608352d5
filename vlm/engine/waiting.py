"""The order in which waiting sequences start: fair between callers, first come, first served for each. Pure Python.

::

    preempted    [seq 2]               they had started, and go on before any other starts
    caller a     [seq 3, seq 5]        1 place is running
    caller b     [seq 4, seq 6]        nothing is running: seq 4 is next

The next sequence to start is the first preempted one. If there is none, it is the first one of the caller that has the
fewest places running; among equals, the one that has waited longest. So one caller alone is served first come, first
served. No caller starves: what it has running ends, and then only sequences that have waited longer go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

from vlm.engine.sequence import Sequence
from vlm.generations import places_for


class WaitingQueue:
    """The sequences that wait, and how many places each caller has running.

    Adding and removing take constant time; finding the next takes time for each caller that waits.
    """

    def __init__(self, slots: int, rows: int) -> None:
        """No sequence waits or runs; for the arguments, see :class:`~vlm.engine.scheduler.Scheduler`."""
        self._slots = slots
        self._rows = rows
        self._preempted: OrderedDict[Sequence, None] = OrderedDict()
        self._queues: dict[str | None, OrderedDict[Sequence, int]] = {}  # by caller, none of them empty
        self._running: dict[str | None, int] = {}  # places by caller, none of them 0
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
        self._added += 1
        self._queues.setdefault(sequence.caller, OrderedDict())[sequence] = self._added

    def add_preempted(self, sequence: Sequence) -> None:
        """Add one that has just been preempted, before all others."""
        self._preempted[sequence] = None
        self._preempted.move_to_end(sequence, last=False)

    def discard(self, sequence: Sequence) -> None:
        """Remove a sequence; ignores one that does not wait."""
        self._preempted.pop(sequence, None)
        queue = self._queues.get(sequence.caller)
        if queue is not None and queue.pop(sequence, 0) and not queue:
            del self._queues[sequence.caller]

    def next(self) -> Sequence:
        """The next sequence to start; there is at least one."""
        if self._preempted:
            return next(iter(self._preempted))
        return next(iter(self._queues[min(self._queues, key=self._turn)]))

    def started(self, sequence: Sequence) -> None:
        """A sequence has left the queue and runs."""
        self.discard(sequence)
        self._count(sequence, 1)

    def stopped(self, sequence: Sequence) -> None:
        """A sequence runs no more."""
        self._count(sequence, -1)

    def _turn(self, caller: str | None) -> tuple[int, int]:
        """The caller with the smallest of these is next: places that it has running, number of its first sequence."""
        return self._running.get(caller, 0), next(iter(self._queues[caller].values()))

    def _count(self, sequence: Sequence, sign: int) -> None:
        places = places_for(sequence.num_beams, self._slots, self._rows)
        running = self._running.pop(sequence.caller, 0) + sign * places
        if running:
            self._running[sequence.caller] = running
