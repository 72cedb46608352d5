"""Progress of a long computation, printed on stderr every few seconds."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts finished items and every few seconds prints a line such as ``blip-large 120/800``.

    Args:
        name: At the start of every line.
        total: Number of items.
        every_s: Seconds between two lines; a computation that takes less prints nothing.
    """

    def __init__(self, name: str, total: int, every_s: float = 10.0) -> None:
        self._name = name
        self._total = total
        self._every_s = every_s
        self._finished = 0
        self._next_line = time.monotonic() + every_s

    def step(self) -> None:
        """Count one more finished item."""
        self._finished += 1
        if time.monotonic() >= self._next_line:
            print(f"{self._name} {self._finished}/{self._total}", file=sys.stderr, flush=True)
            self._next_line = time.monotonic() + self._every_s
