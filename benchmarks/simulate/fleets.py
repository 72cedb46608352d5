"""From one replica to a thousand: the highest rate that a fleet sustains, what stops it there, and what that costs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from benchmarks.cost.__main__ import dollars
from benchmarks.simulate.controller_costs import Controller
from benchmarks.simulate.costs import Costs, Limits
from benchmarks.simulate.load import poisson
from benchmarks.simulate.system import Node, Run, fleet

SIZES = (1, 3, 10, 30, 100, 300, 1000)
SHARES = (0.97, 0.94, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Of what the busiest part could do; the first that holds is the sustained rate."""
P99_S = 1.0
REFUSED = 0.001
"""A rate is sustained while 99 of 100 answers come within P99_S and fewer than this share are refused."""
SATURATED = 0.9
"""A part whose utilisation is above this is what stops the fleet."""
ROUTER_SHARE = 0.7
"""How busy a router should be where there are as many as one likes."""
REQUESTS = 8_000
"""Of a run: enough for a p99, where it is not more than LEAST_S."""
LEAST_S = 0.5
LONGEST_S = 20.0
SHIPPED_ROUTERS = 8
"""``max_replicas`` of the router in serve_config.yaml; a test compares."""


class Stop(Enum):
    """What is busy when a fleet cannot do more."""

    REPLICAS = "replicas"
    ROUTERS = "routers"
    NOTHING = "bursts"
    """No part is busy all the time: of what comes at random, too much comes at once and is refused or takes long."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What there is more and more of.

    Attributes:
        model: Of all replicas.
        costs, limits: Of the model, and the settings.
        node: On which it runs.
        hour: Dollars for an hour of a node.
    """

    name: str
    model: str
    costs: Costs
    limits: Limits
    node: Node
    hour: float


@dataclass(frozen=True, slots=True)
class Row:
    """What a fleet of one size does.

    Attributes:
        rate: Requests a second.
        p50, p99: Seconds.
        stop: What stops it.
        router_busy, replica_busy: The utilisation of each.
        controller: Cores that Serve's controller would take; it has one.
        change_s: CPU seconds of the controller until all routers know of a replica that comes or goes.
        dollars: For 1,000 requests.
        capped: Whether the number of routers has a bound.
    """

    fleet: str
    replicas: int
    routers: int
    nodes: int
    rate: float
    p50: float
    p99: float
    stop: Stop
    router_busy: float
    replica_busy: float
    controller: float
    change_s: float
    dollars: float
    capped: bool


def replica_rate(one: Fleet, seconds: float = 10.0) -> float:
    """Answers a second of a replica that always has enough to do, with a router that never stops it."""
    free = replace(one.costs, router=one.costs.router / 1000, router_wake=0.0)
    open_door = replace(one.limits, max_requests=10_000)
    full = one.limits.max_batch
    least_s = one.costs.start(full, 0) + one.costs.tokens * one.costs.decode_step(full)
    return _run(replace(one, costs=free, limits=open_door), 1, 1, 2 * full / least_s, seconds).rate


def rows(one: Fleet, controller: Controller, sizes: Sequence[int] = SIZES, at_most: int | None = None) -> Iterator[Row]:
    """A row for each size. ``at_most``: routers; None for as many as are of use."""
    each, shares = replica_rate(one), SHARES
    for replicas in sizes:
        wanted = routers_for(replicas, each, one.costs.router)
        routers = min(wanted, at_most) if at_most else wanted
        bound = min(replicas * each, routers / one.costs.router)
        share, run = sustained(_runs(one, replicas, routers), bound, shares)
        yield _row(one, controller, (replicas, routers), run, each, capped=at_most is not None)
        if replicas >= 100:  # larger ones behave as this one, and take long to simulate
            shares = tuple(other for other in shares if other <= share)


def routers_for(replicas: int, each: float, router_s: float) -> int:
    """As many as are of use to replicas that answer ``each`` requests a second."""
    return math.ceil(replicas * each * router_s / ROUTER_SHARE)


def sustained(run: Callable[[float], Run], bound: float, shares: Sequence[float] = SHARES) -> tuple[float, Run]:
    """The largest of the shares of a rate that is sustained, and its run; the least one if none is."""
    for share in shares:
        ran = run(share * bound)
        if ran.refused <= REFUSED and 0 < ran.p99 <= P99_S:
            break
    return share, ran


def _runs(one: Fleet, replicas: int, routers: int) -> Callable[[float], Run]:
    return lambda rate: _run(one, replicas, routers, rate)


def _run(one: Fleet, replicas: int, routers: int, rate: float, seconds: float | None = None) -> Run:
    lasts = seconds or min(LONGEST_S, max(LEAST_S, REQUESTS / rate))
    times = poisson(rate, random.Random(replicas))  # noqa: S311  # not for secrets
    return fleet(one.costs, one.limits, one.node, times, replicas=replicas, routers=routers, seconds=lasts)


def _row(one: Fleet, controller: Controller, size: tuple[int, int], run: Run, each: float, *, capped: bool) -> Row:
    replicas, routers = size
    nodes = -(-replicas // one.node.replicas)
    router_busy = run.rate * run.cpu["router"] / routers
    replica_busy = run.rate / (replicas * each)
    return Row(
        one.name, replicas, routers, nodes, run.rate, run.p50, run.p99, _stop(router_busy, replica_busy), router_busy,
        replica_busy, controller.cores(replicas, routers), controller.change_s(replicas, routers),
        dollars(run.rate, nodes * one.hour, 1.0), capped,
    )  # fmt: skip


def _stop(router_busy: float, replica_busy: float) -> Stop:
    if max(router_busy, replica_busy) < SATURATED * SATURATED:
        return Stop.NOTHING
    return Stop.ROUTERS if router_busy > replica_busy else Stop.REPLICAS


def controller_breaks(each: float, router_s: float, controller: Controller, reports_a_second: float = 1.0) -> int:
    """The number of replicas at which the controller needs more than its core, with as many routers as are of use."""
    least, most = 1, 100_000
    while least < most:
        middle = (least + most) // 2
        if controller.cores(middle, routers_for(middle, each, router_s), reports_a_second) > 1:
            most = middle
        else:
            least = middle + 1
    return least
