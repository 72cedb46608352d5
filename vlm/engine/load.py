"""How long a request that comes now would wait for the engine, from the places held and the pace of recent answers.

It counts whatever is the bottleneck, the device or the decoding of images. Pure Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from vlm.pace import Pace


class Load:
    """The load of one engine. Any thread may use it; a figure may be that of a moment ago."""

    def __init__(self, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``slots`` places are worked on at once; what is held beyond them waits."""
        self._slots = slots
        self._pace = Pace(slots, clock)

    def changed(self, used: int) -> None:
        """Places were taken or given back, and ``used`` are held now."""
        self._pace.changed(busy=used >= self._slots)

    def served(self, places: int) -> None:
        """A generation of so many places, which it still holds, has been answered."""
        self._pace.served(places)

    def queue_s(self, used: int) -> float:
        """Seconds that a request of one place would wait while ``used`` are held; 0 if it would start at once.

        An engine that serves nothing has a longer queue each second.
        """
        return self._pace.seconds(used + 1 - self._slots)

    def retry_after_s(self, used: int) -> int:
        """Whole seconds after which a request that is refused while ``used`` are held may try again."""
        return self._pace.retry_after_s(used + 1 - self._slots)
