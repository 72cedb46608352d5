"""Progress of slow work as lines of text: one every few seconds, none for work that ends before."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL_S = 5.0
"""Seconds between two lines, and before the first."""

Clock = Callable[[], float]


class Progress:
    """Decides by the time that has passed whether a line about a step is due."""

    def __init__(self, report: Callable[[str], None], clock: Clock = time.monotonic) -> None:
        """``report`` gets the lines; ``clock`` gives seconds that never go back."""
        self._report = report
        self._clock = clock
        self._last = clock()

    def update(self, line: str) -> None:
        """Report ``line`` if the last one, or the start, is at least ``INTERVAL_S`` ago."""
        now = self._clock()
        if now - self._last >= INTERVAL_S:
            self._last = now
            self._report(line)
