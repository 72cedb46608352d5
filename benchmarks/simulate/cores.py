"""Cores that threads share, and threads with a queue. Knows nothing of requests.

A machine with two cores and three threads that have work::

    thread       a    b    c
    core         2/3  2/3  2/3     each gets an equal part, and never more than one core
"""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count

from benchmarks.simulate.events import Action, Events

TOLERANCE_S = 1e-12
"""Work that is left by rounding counts as done."""


class Cores:
    """The cores of one machine, shared equally by the jobs that run (processor sharing).

    ``_served`` is the work that each job present from the beginning would have got: a job that comes when it is ``s``
    and takes ``w`` is done when it is ``s + w``, whoever comes and goes meanwhile.
    """

    def __init__(self, events: Events, cores: int) -> None:
        """No job runs.

        Raises:
            ValueError: There is no core.
        """
        if cores < 1:
            raise ValueError("a machine needs a core")
        self.events = events
        self._cores = cores
        self._jobs: list[tuple[float, int, Action]] = []
        self._number = count()
        self._served = 0.0
        self._at = 0.0
        self._version = 0

    @property
    def excess(self) -> float:
        """Jobs beyond the cores if one more comes, as a share of the cores."""
        return max(0.0, (len(self._jobs) + 1) / self._cores - 1)

    def run(self, work_s: float, then: Action) -> None:
        """Do so much work, and then something."""
        self._catch_up()
        heapq.heappush(self._jobs, (self._served + work_s, next(self._number), then))
        self._plan()

    def _rate(self) -> float:
        return min(1.0, self._cores / len(self._jobs)) if self._jobs else 1.0

    def _catch_up(self) -> None:
        self._served += (self.events.now - self._at) * self._rate()
        self._at = self.events.now

    def _plan(self) -> None:
        """Plan the end of the first job; what was planned before is void."""
        self._version += 1
        if self._jobs:
            version, left = self._version, max(0.0, self._jobs[0][0] - self._served)
            self.events.after(left / self._rate(), lambda: self._end(version))

    def _end(self, version: int) -> None:
        if version != self._version:
            return
        self._catch_up()
        done: list[Action] = []
        while self._jobs and (not done or self._jobs[0][0] <= self._served + TOLERANCE_S):
            done.append(heapq.heappop(self._jobs)[2])
        self._plan()
        for then in done:
            then()


class Threads:
    """Threads that take jobs in their order, such as the one event loop of a process, or its decoding processes.

    Attributes:
        work_s: CPU seconds so far.
    """

    def __init__(self, cores: Cores, threads: int = 1, *, wake_s: float = 0.0, crowd: float = 0.0) -> None:
        """All of them idle.

        Args:
            wake_s: CPU seconds that a job takes beyond its own where it finds a thread asleep.
            crowd: How much more a job takes, as a share, where twice as many threads as cores have work.
        """
        self._cores = cores
        self._free = threads
        self._wake_s = wake_s
        self._crowd = crowd
        self._queue: deque[tuple[float, Action]] = deque()
        self.work_s = 0.0

    @property
    def waiting(self) -> int:
        """Number of jobs that no thread has begun."""
        return len(self._queue)

    def do(self, work_s: float, then: Action) -> None:
        """Do a job when its turn has come, and then something."""
        if self._free:
            self._free -= 1
            self._begin(work_s + self._wake_s, then)
        else:
            self._queue.append((work_s, then))

    def _begin(self, work_s: float, then: Action) -> None:
        work_s *= 1 + self._crowd * self._cores.excess
        self.work_s += work_s
        self._cores.run(work_s, lambda: self._done(then))

    def _done(self, then: Action) -> None:
        # What follows may be another job of this thread, which takes its place at the end of the queue.
        self._free += 1
        next_one = self._queue.popleft() if self._queue else None
        if next_one:
            self._free -= 1
        then()
        if next_one:
            self._begin(*next_one)
