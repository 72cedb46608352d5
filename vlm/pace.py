"""How much gets done in a second by what answers requests: one engine, or the replicas of a model. Pure Python.

By Little's law, what waits is served in as many seconds as it has places, over the places served a second. The pace is
measured while as much is held as can be worked on, and a moment longer. At other times it says how much is asked, and
not how much could be done::

    held        |<-- all that can be worked on -->|<- LINGER_S ->|  less: nothing is counted
    answers              x      x          x      xxxxxxxxx

The first of the answers that end together takes what is held below what can be worked on. The others come within
LINGER_S, and count as well.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

WINDOW_S = 5.0
"""Measured seconds after which what was served counts for a third: longer than most answers take, and short enough to
follow a change of what is asked."""
LINGER_S = 0.25
"""Seconds for which answers go on to count: writing out a batch of them that ended in one step takes less."""
UNKNOWN_RETRY_S = 2
"""What a client is told to wait while no pace is known: as long as some answers take, whatever the model."""
LONGEST_RETRY_S = 60
"""Clients of OpenAI's give up where they are told to wait longer than two minutes."""


class Pace:
    """Places served in a second. Any thread may use it; a figure may be that of a moment ago.

    ``servers`` is how many of a kind work at the same time, so that the pace of one is known when their number changes.
    """

    def __init__(self, enough: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has been served.

        Args:
            enough: Number of places after which the pace is known: as many as are worked on at once, because the first
                answers of a batch say nothing about those that are about to end with them.
            clock: In seconds.
        """
        self._enough = enough
        self._clock = clock
        self._lock = threading.RLock()  # the garbage collector may end a request in a thread that holds it
        self._busy = False
        self._since = 0.0  # when it became busy, or when something was served last
        self._until = -math.inf  # the end of LINGER_S
        self._busy_s = 0.0  # of one server: seconds of all together
        self._served = 0.0
        self._total = 0

    @property
    def is_known(self) -> bool:
        """Whether enough has been served."""
        return self._total >= self._enough

    def changed(self, *, busy: bool) -> None:
        """From now on, as much is held as can be worked on; or less."""
        if busy == self._busy:
            return
        with self._lock:
            self._busy, now = busy, self._clock()
            if busy:
                self._since = now
            else:
                self._until = now + LINGER_S

    def served(self, places: int, servers: int = 1) -> None:
        """A request of so many places, which are still held, has been answered."""
        with self._lock:
            now = self._clock()
            if not self._busy and now > self._until:
                return
            passed = now - self._since
            keep = math.exp(-passed / WINDOW_S)
            self._busy_s = self._busy_s * keep + passed * servers
            self._served = self._served * keep + places
            self._total += places
            self._since = now

    def seconds(self, places: int, servers: int = 1) -> float:
        """How long so many servers take for so many places; the longer, the longer nothing has been served.

        While the pace is not known, it is how long nothing has been served, whatever waits.
        """
        if places <= 0:
            return 0.0
        with self._lock:
            silent_s = self._clock() - self._since if self._busy else 0.0
            if not self.is_known:
                return silent_s
            return places * (self._busy_s / servers + silent_s) / self._served

    def retry_after_s(self, places: int, servers: int = 1) -> int:
        """Whole seconds, from 1 to LONGEST_RETRY_S, after which so many places have been served."""
        if not self.is_known:
            return UNKNOWN_RETRY_S
        return max(1, min(LONGEST_RETRY_S, math.ceil(self.seconds(places, servers))))
