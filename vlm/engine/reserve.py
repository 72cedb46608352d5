"""How many slots one caller leaves to others, and batches to everyone else, while those ask. Pure Python.

::

    slots                        [0, n)
    one caller                   all of them, until another has asked; then at most n - reserved
    batches of all callers       all of them, until something else is asked for; then likewise

So who asks next finds a slot at once and does not wait for an answer to end, and shares the steps with fewer rows. What
has asked within LATELY_S, or runs, counts as asking. Slots that stay free meanwhile are the price.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

LATELY_S = 10.0
"""Seconds for which the reserve is kept after a request: longer than a client takes between two of them, and than most
answers."""

Caller = str | None


class Reserve:
    """The slots that are kept free, and who runs how many places."""

    def __init__(self, slots: int, percent: int, clock: Callable[[], float]) -> None:
        """Nothing runs and nobody has asked.

        Args:
            slots: Number of slots.
            percent: How many of 100 are reserved; at least one slot never is.
            clock: In seconds.
        """
        self._all = slots
        self._most = max(1, slots - -(-slots * percent // 100))
        self._clock = clock
        self._running: Counter[Caller] = Counter()  # places, none of them 0
        self._batches = 0  # places
        self._last: tuple[Caller, float] = (None, -math.inf)  # who has asked last, and when
        self._before: tuple[Caller, float] = (None, -math.inf)  # the last one who is not the same
        self._last_urgent = -math.inf  # when something was asked for that is of no batch

    def asked(self, caller: Caller, *, batch: bool) -> None:
        """A request has come, or one has ended: somebody waits for answers."""
        now = self._clock()
        if caller != self._last[0]:
            self._before = self._last
        self._last = caller, now
        if not batch:
            self._last_urgent = now

    def runs(self, caller: Caller, places: int, *, batch: bool) -> None:
        """So many places more are running; fewer, if it is negative."""
        self._running[caller] += places
        if not self._running[caller]:
            del self._running[caller]
        self._batches += places if batch else 0

    def left(self, caller: Caller, *, batch: bool) -> int:
        """How many more places may start for this caller, as far as the reserve goes: 0 or less if none."""
        recent = self._clock() - LATELY_S
        running = self._running.get(caller, 0)
        of_caller = self._most - running if self._others_ask(caller, recent) else self._all
        urgent = self._last_urgent > recent or sum(self._running.values()) > self._batches
        return min(of_caller, self._most - self._batches) if batch and urgent else of_caller

    def _others_ask(self, caller: Caller, recent: float) -> bool:
        if len(self._running) > (caller in self._running):
            return True
        other, at = self._last if self._last[0] != caller else self._before
        return other != caller and at > recent
