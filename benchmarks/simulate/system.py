"""Whole systems: all on the cores of one machine with the client, or a fleet of many nodes; and a run of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from benchmarks.simulate.cores import Cores, Threads
from benchmarks.simulate.costs import Costs, Limits
from benchmarks.simulate.events import Events
from benchmarks.simulate.load import Load
from benchmarks.simulate.replica import Replica
from benchmarks.simulate.requests import Outcome, Tally
from benchmarks.simulate.router import Router

BACKGROUND_PERIOD_S = 0.02
"""Ray's processes wake up often, for little."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run.

    Attributes:
        rate: Answers a second.
        p50, p95, p99: Seconds that answers took.
        refused: The share of the requests that ended which were refused.
        cpu: CPU seconds of an answered request, by part.
        rows: Mean rows of a decode step.
    """

    rate: float
    p50: float
    p95: float
    p99: float
    refused: float
    cpu: Mapping[str, float]
    rows: float


@dataclass(frozen=True, slots=True)
class Node:
    """What there is many times of.

    Attributes:
        cores: Of a node.
        replicas: On a node.
    """

    cores: int
    replicas: int


def one_machine(
    costs: Costs, limits: Limits, *, cores: int, replicas: int, clients: int, seconds: float, seed: int = 0
) -> Run:
    """The client, a router and the replicas share the cores, as in ``benchmarks.growth``."""
    events, rng = Events(), random.Random(seed)  # noqa: S311  # not for secrets
    host = Cores(events, cores)
    all_of_them = [_replica(one, costs, limits, host) for one in range(replicas)]
    router = Router(costs, limits, host, all_of_them, rng)
    _background(events, host, costs.background)
    tally = Tally()
    load = Load(events, tally, costs.tokens, router.take)
    load.closed(clients, Threads(host, crowd=costs.crowd), costs.client)
    return _counted(events, tally, [router], all_of_them, warm_s=0.2 * seconds, seconds=seconds)


def fleet(
    costs: Costs, limits: Limits, node: Node, times: Iterable[float], *, replicas: int, routers: int, seconds: float,
    seed: int = 0,
) -> Run:  # fmt: skip
    """Requests at these moments, on nodes of their own; the first nodes have a router each, or more if need be."""
    events, rng = Events(), random.Random(seed)  # noqa: S311  # not for secrets
    hosts = [Cores(events, node.cores) for _ in range(-(-replicas // node.replicas))]
    all_of_them = [_replica(one, costs, limits, hosts[one // node.replicas]) for one in range(replicas)]
    all_routers = [Router(costs, limits, hosts[one % len(hosts)], all_of_them, rng) for one in range(routers)]
    turns, tally = cycle(all_routers), Tally()
    Load(events, tally, costs.tokens, lambda request: next(turns).take(request)).at(times)
    return _counted(events, tally, all_routers, all_of_them, warm_s=0.5 * seconds, seconds=seconds)


def _replica(number: int, costs: Costs, limits: Limits, host: Cores) -> Replica:
    return Replica(number, costs, limits, host, Cores(host.events, 1) if costs.device else None)


def _background(events: Events, host: Cores, share: float) -> None:
    def work() -> None:
        host.run(share * BACKGROUND_PERIOD_S, lambda: None)
        events.after(BACKGROUND_PERIOD_S, work)

    if share:
        work()


def _counted(
    events: Events, tally: Tally, routers: Sequence[Router], replicas: Sequence[Replica], *, warm_s: float,
    seconds: float,
) -> Run:  # fmt: skip
    parts: Mapping[str, Callable[[], float]] = {
        "router": lambda: sum(one.loop.work_s for one in routers),
        "decoding": lambda: sum(one.decoding.work_s for one in replicas),
        "replica": lambda: sum(one.loop.work_s for one in replicas),
    }
    events.run(warm_s)
    tally.since = events.now
    before, ended = {name: used() for name, used in parts.items()}, tally.outcomes.copy()
    steps, rows = sum(one.steps for one in replicas), sum(one.rows for one in replicas)
    events.run(warm_s + seconds)
    now = tally.outcomes - ended
    answered, times = max(1, now[Outcome.ANSWERED]), sorted(tally.times) or [0.0]
    return Run(
        rate=now[Outcome.ANSWERED] / seconds,
        p50=_part(times, 0.50),
        p95=_part(times, 0.95),
        p99=_part(times, 0.99),
        refused=now[Outcome.REFUSED] / max(1, now.total()),
        cpu={name: (used() - before[name]) / answered for name, used in parts.items()},
        rows=(sum(one.rows for one in replicas) - rows) / max(1, sum(one.steps for one in replicas) - steps),
    )


def _part(times: Sequence[float], share: float) -> float:
    return times[min(len(times) - 1, int(share * len(times)))]
