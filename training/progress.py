"""How far a long piece of work has come, said on stderr now and then. Knows nothing of the work."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts steps, and every few seconds writes a line such as ``blip-large 120/800``; nothing of short work.

    Args:
        name: What is worked on.
        total: Its steps.
        every_s: Seconds from one line to the next.
    """

    def __init__(self, name: str, total: int, every_s: float = 10.0) -> None:
        self._name = name
        self._total = total
        self._every_s = every_s
        self._done = 0
        self._next = time.monotonic() + every_s

    def step(self) -> None:
        """One more is done."""
        self._done += 1
        if time.monotonic() >= self._next:
            print(f"{self._name} {self._done}/{self._total}", file=sys.stderr, flush=True)
            self._next = time.monotonic() + self._every_s
