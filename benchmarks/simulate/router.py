"""A process of the router: lets requests in, chooses a replica for each, and passes answers on."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.simulate.cores import Cores, Threads
from benchmarks.simulate.costs import Costs, Limits
from benchmarks.simulate.replica import Replica
from benchmarks.simulate.requests import Outcome, Request


class Router:
    """One process, whose event loop is one thread.

    Of two replicas drawn at random it takes the one with the shorter queue, as Ray Serve's handles do. It knows a
    replica's queue from the last time that the replica took a request of this router, less those of them that were
    answered since. So the more routers there are, the less each one knows.

    Attributes:
        held: Requests that it has let in and not answered.
    """

    def __init__(
        self, costs: Costs, limits: Limits, host: Cores, replicas: Sequence[Replica], rng: random.Random
    ) -> None:
        """An idle one. ``replicas`` may change."""
        self.held = 0
        self.loop = Threads(host, wake_s=costs.router_wake, crowd=costs.crowd)
        self._costs = costs
        self._limits = limits
        self._replicas = replicas
        self._rng = rng
        self._seen: defaultdict[int, int] = defaultdict(int)

    def take(self, request: Request) -> None:
        """Let a request in, or refuse it. Either takes half of what a request takes."""
        self.held += 1
        within = self.held <= min(self._limits.max_requests, self._limits.let_in * len(self._replicas))
        self.loop.do(self._costs.router / 2, lambda: self._send(request) if within else self._refuse(request))

    def _send(self, request: Request) -> None:
        """To a replica with room; several are tried."""
        for _ in range(1 + self._limits.retries):
            request.attempts += 1
            chosen = self._choice()
            if chosen is not None and chosen.has_room():
                self._give(request, chosen)
                return
        self._refuse(request)

    def _choice(self) -> Replica | None:
        two = [one for one in self._rng.sample(self._replicas, min(2, len(self._replicas))) if one.alive]
        return min(two, key=lambda one: self._seen[one.number], default=None)

    def _give(self, request: Request, chosen: Replica) -> None:
        def answered(request: Request) -> None:
            self._seen[chosen.number] = max(0, self._seen[chosen.number] - 1)
            self.loop.do(self._costs.router / 2, lambda: self._end(request, Outcome.ANSWERED))

        chosen.take(request, answered)
        self._seen[chosen.number] = chosen.load

    def _refuse(self, request: Request) -> None:
        self._end(request, Outcome.REFUSED)

    def _end(self, request: Request, outcome: Outcome) -> None:
        self.held -= 1
        request.ended(request, outcome)
