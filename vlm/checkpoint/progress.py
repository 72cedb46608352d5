"""Reports the progress of slow work: one line every few seconds, and none for work that ends sooner."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL_S = 5.0
"""Seconds between two lines, and from the start to the first."""

Clock = Callable[[], float]


class Progress:
    """Reports a step only if enough time has passed since the last report."""

    def __init__(self, report: Callable[[str], None], clock: Clock = time.monotonic) -> None:
        """``report`` gets the lines; ``clock`` returns monotonic time in seconds."""
        self._report = report
        self._clock = clock
        self._last = clock()

    def update(self, line: str) -> None:
        """Report ``line`` if the last report, or the start, was at least ``INTERVAL_S`` seconds ago."""
        now = self._clock()
        if now - self._last >= INTERVAL_S:
            self._last = now
            self._report(line)
