"""How long a request that comes now would wait for the engine, from the places held and the pace of recent answers.

By Little's law, what waits is served in as many seconds as it has places, over the places served a second. The pace is
measured only while the engine is full: at other times it says how much is asked, and not how much could be done. It
counts whatever is the bottleneck, the device or the decoding of images. Pure Python.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WINDOW_S = 5.0
"""Full seconds after which what was served counts for a third: longer than most answers take, and short enough to
follow a change of what is asked."""


class Load:
    """The pace of one engine. Any thread may use it; a figure may be that of a moment ago."""

    def __init__(self, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``slots`` places are worked on at once; what is held beyond them waits."""
        self._slots = slots
        self._clock = clock
        self._full_since: float | None = None  # or since what was served last
        self._full_s = 0.0
        self._served = 0.0

    def changed(self, used: int) -> None:
        """Places were taken or given back, and ``used`` are held now."""
        if used < self._slots:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = self._clock()

    def served(self, places: int) -> None:
        """A generation of so many places, which it still holds, has been answered."""
        since = self._full_since
        if since is None:
            return
        now = self._clock()
        keep = math.exp((since - now) / WINDOW_S)
        self._full_s = self._full_s * keep + now - since
        self._served = self._served * keep + places
        self._full_since = now

    def queue_s(self, used: int) -> float:
        """Seconds that a request of one place would wait while ``used`` are held; 0 if it would start at once.

        An engine that serves nothing has a longer queue each second.
        """
        ahead = used + 1 - self._slots
        if ahead <= 0:
            return 0.0
        since = self._full_since
        silent_s = 0.0 if since is None else self._clock() - since
        return ahead * (self._full_s + silent_s) / max(1.0, self._served)
