"""Which image is decoded next: the smallest first, within a budget of memory, and none waits for ever.

Pure Python. The threads of the pool take from it, each for the process that it drives.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from vlm.models.processor import ProcessedImage
from vlm.types import EncodedImage

SMALL_FRACTION = 16
"""An image is small if it takes at most this fraction of the budget: 2.7 megapixels of 512 MiB."""

AGEING_BYTES_PER_S = 64 * 1024**2
"""An image that has waited a second longer goes before one that takes so much less."""


@dataclass(eq=False, slots=True)
class Job:
    """An image that is to be decoded.

    Attributes:
        image: The encoded image, or the part of one.
        cost: Estimate of the bytes that decoding it holds.
        result: Pending until there is a result; cancelling it gives the image up, even while it is decoded.
        context: That of whoever asks, so that lines about the image are of the request.
    """

    image: EncodedImage
    cost: int
    result: Future[ProcessedImage] = field(default_factory=Future)
    context: Context = field(default_factory=copy_context)


class DecodeQueue:
    """Images that wait, and the memory of those that are decoded.

    Small images are not charged: each process may hold one, and the room for that is taken off the budget at the
    beginning. The others are charged, and start in their order, each when the budget has room for it. One that takes
    more than the whole budget starts when no other big one is there.
    """

    def __init__(self, processes: int, memory_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """``processes``: number of processes that take from it; ``memory_bytes``: the budget."""
        self._processes = processes
        self._small_bytes = memory_bytes // SMALL_FRACTION
        self._budget = max(memory_bytes - processes * self._small_bytes, self._small_bytes)
        self._used = 0  # by big images
        self._clock = clock
        self._count = itertools.count()
        self._waiting: dict[bool, list[tuple[float, int, Job]]] = {True: [], False: []}  # by whether they are small
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: Job) -> bool:
        """Add an image; False if the queue is closed."""
        # One that came later by a second may be smaller by that much. Both sides age alike, so the order never changes.
        order = job.cost + self._clock() * AGEING_BYTES_PER_S
        with self._changed:
            if self._closed:
                return False
            small = self._is_small(job)
            heapq.heappush(self._waiting[small], (order, next(self._count), job))
            self._changed.notify(1 if small else self._processes)  # not every one takes a big one
        return True

    def take(self, *, only_small: bool) -> Job | None:
        """Wait for an image that may be decoded now; None once the queue is closed. :meth:`finished` must follow.

        Args:
            only_small: Leave the big ones to other processes, so that a small one never waits for one of them.
        """
        with self._changed:
            while not self._closed:
                if (job := self._next(only_small=only_small)) is not None:
                    return job
                self._changed.wait()
        return None

    def finished(self, job: Job) -> None:
        """An image that was taken is decoded or given up, and its memory is free."""
        if not self._is_small(job):
            with self._changed:
                self._used -= job.cost
                self._changed.notify_all()

    def discard(self, job: Job) -> None:
        """Forget an image that waits; does nothing if it does not."""
        with self._changed:
            heap = self._waiting[self._is_small(job)]
            heap[:] = [entry for entry in heap if entry[2] is not job]
            heapq.heapify(heap)
            self._changed.notify_all()

    def close(self) -> list[Job]:
        """Give out no more images; returns those that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            left = [job for heap in self._waiting.values() for _, _, job in heap]
            for heap in self._waiting.values():
                heap.clear()
        return left

    def _next(self, *, only_small: bool) -> Job | None:
        heaps = [heap for small, heap in self._waiting.items() if self._startable(heap) and (small or not only_small)]
        if not heaps:
            return None
        job = heapq.heappop(min(heaps))[2]  # the one whose first element comes first
        if not self._is_small(job):
            self._used += job.cost
        return job

    def _startable(self, heap: list[tuple[float, int, Job]]) -> bool:
        if not heap:
            return False
        job = heap[0][2]
        return self._is_small(job) or not self._used or self._used + job.cost <= self._budget

    def _is_small(self, job: Job) -> bool:
        return job.cost <= self._small_bytes
