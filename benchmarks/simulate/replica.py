"""A replica: its event loop, its decoding processes, and its engine.

The engine is what ``vlm/engine/scheduler.py`` does, in numbers: a step starts at most ``max_prefill`` sequences and
gives each one that runs a token.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count

from benchmarks.simulate.cores import Cores, Threads
from benchmarks.simulate.costs import Costs, Limits
from benchmarks.simulate.requests import Request

GATHERED, PATIENCE = 8, 4
"""As in ``vlm.engine.scheduler``, which a test compares."""


class Replica:
    """One process of a model.

    Attributes:
        number: Which one it is.
        alive: Whether it takes requests.
        held: The requests that it has, and what to do with each that is answered.
        steps, rows: Of decoding, so far.
    """

    def __init__(self, number: int, costs: Costs, limits: Limits, host: Cores, device: Cores | None) -> None:
        """An idle one. ``device``: where its steps run, if that is not a thread of its own process."""
        self.number = number
        self.alive = True
        self.held: dict[Request, Callable[[Request], None]] = {}
        self.steps = self.rows = 0
        self._costs = costs
        self._limits = limits
        self.loop = Threads(host, crowd=costs.crowd)
        self.decoding = Threads(host, limits.decode_processes, crowd=costs.crowd)
        self.engine = Threads(device) if device else self.loop
        self._waiting: deque[Request] = deque()
        self._running: list[tuple[int, int, Request]] = []  # the step after which each one ends
        self._order = count()
        self._step = 0
        self._gathering = 0
        self._busy = False
        self._images: OrderedDict[int, None] = OrderedDict()
        self._decoding: dict[int, list[Request]] = {}

    @property
    def load(self) -> int:
        """Requests that it holds."""
        return len(self.held)

    def has_room(self) -> bool:
        """Whether its engine takes another request."""
        return len(self.held) < self._limits.places

    def take(self, request: Request, answered: Callable[[Request], None]) -> None:
        """Work on a request."""
        self.held[request] = answered
        self.loop.do(self._costs.replica / 2, lambda: self._prepare(request))

    def die(self) -> list[Request]:
        """End at once; returns the requests that it had."""
        self.alive = False
        lost = list(self.held)
        self.held.clear()
        return lost

    def _prepare(self, request: Request) -> None:
        """Decode the image, unless that has been done or is being done."""
        request.seen = request.image in self._images
        if request.seen:
            self._images.move_to_end(request.image)
            self._queue(request)
        elif request.image in self._decoding:
            request.seen = True
            self._decoding[request.image].append(request)
        else:
            self._decoding[request.image] = [request]
            self.decoding.do(self._costs.decode, lambda: self._decoded(request.image))

    def _decoded(self, image: int) -> None:
        self._images[image] = None
        while len(self._images) > self._limits.cached_images:
            self._images.popitem(last=False)
        for request in self._decoding.pop(image):
            self._queue(request)

    def _queue(self, request: Request) -> None:
        self._waiting.append(request)
        if not self._busy:
            self._busy = True
            self._next()

    def _next(self) -> None:
        """Begin a step, if there is anything to do."""
        started = self._start()
        rows = len(self._running)
        if not (started or rows) or not self.alive:
            self._busy = False
            return
        self._step += 1
        self.steps += bool(rows)
        self.rows += rows
        for request in started:
            ends = self._step + request.tokens - 1
            heapq.heappush(self._running, (ends, next(self._order), request))
        seen = sum(one.seen for one in started)
        seconds = self._costs.start(len(started) - seen, seen) + self._costs.decode_step(rows)
        self.engine.do(seconds, self._commit)

    def _start(self) -> list[Request]:
        ready = min(len(self._waiting), self._limits.max_batch - len(self._running))
        if 0 < ready < len(self._running) // GATHERED and self._gathering < PATIENCE:
            self._gathering += 1
            return []
        if ready <= self._limits.max_prefill:
            self._gathering = 0
        return [self._waiting.popleft() for _ in range(min(ready, self._limits.max_prefill))]

    def _commit(self) -> None:
        while self._running and self._running[0][0] <= self._step:
            request = heapq.heappop(self._running)[2]
            self._answer(request)
        self._next()

    def _answer(self, request: Request) -> None:
        def out() -> None:
            if (answered := self.held.pop(request, None)) is not None:
                answered(request)

        self.loop.do(self._costs.replica / 2, out)
