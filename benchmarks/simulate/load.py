"""Who sends requests when: clients that wait for their answers, arrivals at random, or a trace of times."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from benchmarks.simulate.cores import Threads
from benchmarks.simulate.events import Events
from benchmarks.simulate.requests import Outcome, Request, Tally

Take = Callable[[Request], None]


class Load:
    """Makes requests, each about a new image, gives them to ``take``, and counts what becomes of them."""

    def __init__(self, events: Events, tally: Tally, tokens: int, take: Take) -> None:
        """Nothing is sent."""
        self._events = events
        self._tally = tally
        self._tokens = tokens
        self._take = take

    def closed(self, clients: int, client: Threads, work_s: float) -> None:
        """Clients that send their next request when one has been answered; all are one thread."""

        def ended(request: Request, outcome: Outcome) -> None:
            self._tally.ended(request, outcome, self._events.now)
            client.do(work_s, lambda: self._send(ended))

        for _ in range(clients):
            client.do(work_s, lambda: self._send(ended))

    def at(self, times: Iterable[float]) -> None:
        """Requests at these moments, in their order, whatever becomes of them."""
        moments = iter(times)

        def ended(request: Request, outcome: Outcome) -> None:
            self._tally.ended(request, outcome, self._events.now)

        def due() -> None:
            self._send(ended)
            plan()

        def plan() -> None:
            if (moment := next(moments, None)) is not None:
                self._events.after(max(0.0, moment - self._events.now), due)

        plan()

    def _send(self, ended: Callable[[Request, Outcome], None]) -> None:
        request = Request(self._events.now, self._tally.sent, self._tokens, ended)
        self._tally.sent += 1
        self._take(request)


def poisson(rate: float, rng: random.Random) -> Iterator[float]:
    """Moments of arrivals at random, without end."""
    moment = 0.0
    while True:
        moment += rng.expovariate(rate)
        yield moment


def trace(seconds: Iterable[float], rng: random.Random) -> Iterator[float]:
    """Arrivals at random whose rate is each of these for a second."""
    for second, rate in enumerate(seconds):
        moment = 0.0
        while rate > 0 and (moment := moment + rng.expovariate(rate)) < 1.0:
            yield second + moment
