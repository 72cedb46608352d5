"""Simulated time, and what happens at which of its moments."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Events:
    """Actions in the order of their times; those of one moment in the order in which they were added.

    Attributes:
        now: Seconds since the beginning.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action]] = []
        self._number = count()

    def after(self, seconds: float, action: Action) -> None:
        """Do something so many seconds from now."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._number), action))

    def run(self, until: float) -> None:
        """Let time pass up to a moment."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = until
