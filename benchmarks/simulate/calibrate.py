"""Fits the service times to what was measured with one replica, and predicts what was measured with several.

What is read off directly, at one replica: the times of the client, the router and the decoding of images, and what Ray
takes in the background. What is fitted: five times of a replica, to the rates and CPU times of one replica by clients
and by tokens of an answer. The replica's event loop runs the same code whatever the model is, so its time is fitted to
one model and used for all. And one number more of each model, how much more work takes on crowded cores, which only the
point with most replicas shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, Self

from benchmarks.simulate.costs import Costs, Limits
from benchmarks.simulate.system import Run, one_machine

CLIENTS, TOKENS, REPLICAS = "clients", "tokens", "replicas"
FILE = Path(__file__).with_name("calibration.json")
CORES = 2
OPEN = Limits(max_waiting=1000, max_requests=10_000, places_per_replica=1000)
"""As in the growth curves, where nobody is refused."""
OF_A_MODEL = ("prefill", "prefill_each", "step", "step_row")
FITTED = ("replica", *OF_A_MODEL)
START = Costs(
    client=0.0002, router=0.0017, router_wake=0.0008, decode=0.003, replica=0.002, prefill=0.006, prefill_each=0.002,
    step=0.0009, step_row=0.00006, tokens=20,
)  # fmt: skip
CROWDS = tuple(one / 40 for one in range(17))
USUAL_CROWD = 0.15
CPU_WEIGHT = 0.5
"""Of the error of the replica's CPU time beside that of the rate, which is what is asked."""
FEW = 4
"""Clients with which the cores are not crowded."""
ANSWERS = 300
"""That a run of the fit should have: enough for a rate within 3 %, and few enough for hundreds of runs."""
FIT_AT = {CLIENTS: (1, 2, 4, 8, 16, 32, 128), TOKENS: (5, 40)}
"""Where it is fitted; the other points add time and little else."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A point of a growth curve.

    Attributes:
        clients, tokens, replicas: Where it is.
        rate: Requests a second.
        p50, p95, p99: Seconds.
        cpu: Seconds of each part of the system for a request.
        spread: Difference of the two rounds' rates, as a share of their mean.
    """

    curve: str
    clients: int
    tokens: int
    replicas: int
    rate: float
    p50: float
    p95: float
    p99: float
    spread: float
    client: float
    cpu: Mapping[str, float]

    @classmethod
    def of(cls, content: Any) -> Self:
        """From a file's object."""
        return cls(**{one.name: content[one.name] for one in fields(cls)})


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, and the service times that were fitted to a part of it, by model."""

    date: str
    machine: str
    points: Mapping[str, Sequence[Measured]]
    costs: Mapping[str, Costs]

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(asdict(self), indent=1) + "\n"


def read(path: Path = FILE) -> Calibration:
    """The calibration in a file."""
    content = json.loads(path.read_text("utf-8"))
    points = {name: [Measured.of(one) for one in them] for name, them in content["points"].items()}
    costs = {name: Costs.of(one) for name, one in content["costs"].items()}
    return Calibration(content["date"], content["machine"], points, costs)


def measured(growth: Any, lengths: Mapping[str, int]) -> Iterator[tuple[str, Measured]]:
    """The points of ``growth.json`` that the simulation knows about, by model. ``lengths``: of answers, in tokens."""
    usual = growth["settings"]["usual"]
    for point in growth["points"]:
        curve, x, cell = point["curve"], int(point["x"]), point["cell"]
        if curve not in (CLIENTS, TOKENS, REPLICAS) or cell["model"] not in lengths:
            continue
        rates, times, rate = cell["rates"], cell["times"], median(cell["rates"])
        yield (
            cell["model"],
            Measured(
                curve=curve,
                clients=x if curve == CLIENTS else usual,
                tokens=x if curve == TOKENS else lengths[cell["model"]],
                replicas=x if curve == REPLICAS else 1,
                rate=rate,
                spread=round((max(rates) - min(rates)) / rate, 3),
                client=cell["client_cpu_ms"] / 1000,
                cpu={name: ms / 1000 for name, ms in cell["cpu_ms"].items()},
                **{name: round(times[name] / 1000, 4) for name in ("p50", "p95", "p99")},
            ),
        )


def run(costs: Costs, point: Measured, answers: int = 2000) -> Run:
    """The simulation of what was measured."""
    return one_machine(
        replace(costs, tokens=point.tokens), OPEN, cores=CORES, replicas=point.replicas, clients=point.clients,
        seconds=max(2 * point.p95, answers / point.rate),
    )  # fmt: skip


def fit(points: Mapping[str, Sequence[Measured]], first: str) -> dict[str, Costs]:
    """Service times of all models. ``first``: whose event loop's time all others have."""
    costs = {first: _fit_one(START, points[first], FITTED)}
    start = replace(START, replica=costs[first].replica)
    for name in points.keys() - costs.keys():
        costs[name] = _fit_one(start, points[name], OF_A_MODEL)
    return {name: costs[name] for name in points}


def _fit_one(start: Costs, points: Sequence[Measured], names: Sequence[str]) -> Costs:
    """Twice: what one replica takes depends a little on what crowded cores cost, and the other way round."""
    costs, most = replace(start, crowd=USUAL_CROWD), max(points, key=lambda one: one.replicas)
    for _ in range(2):
        fitted = _fit_times(_read_off(costs, points), points, names)
        costs = min((replace(fitted, crowd=crowd) for crowd in CROWDS), key=lambda one: _off(run(one, most), most))
    return costs


def _off(ran: Run, point: Measured) -> float:
    return abs(math.log(ran.rate / point.rate))


def _read_off(costs: Costs, points: Sequence[Measured]) -> Costs:
    """Times on free cores. The client shares them, so even one replica has work on crowded ones."""
    alone = [one for one in points if one.curve == CLIENTS]
    few = [one for one in alone if one.clients <= FEW]
    ours = ("router", "replica", "decoding")
    rest = [one.rate * sum(took for name, took in one.cpu.items() if name not in ours) for one in alone]
    free = 1 + costs.crowd / 4
    router = min(one.cpu["router"] for one in alone) / free
    return replace(
        costs, client=median(one.client for one in alone), background=median(rest), router=router,
        router_wake=max(0.0, alone[0].cpu["router"] - router) / 2,
        decode=median(one.cpu["decoding"] for one in few) / free,
    )  # fmt: skip


def _fit_times(costs: Costs, points: Sequence[Measured], names: Sequence[str]) -> Costs:
    chosen = [one for one in points if getattr(one, one.curve) in FIT_AT.get(one.curve, ())]

    def error(tried: Costs) -> float:
        return fmean(_error(run(tried, one, ANSWERS), one) for one in chosen)

    return search(costs, names, error)


def search(
    costs: Costs, names: Sequence[str], error: Callable[[Costs], float], widths: Iterable[float] = (0.25, 0.1, 0.04)
) -> Costs:
    """Vary one of the times after the other, by less and less, and keep what is better."""
    best, least = costs, error(costs)
    for width in widths:
        for name in names:
            for factor in (1 + width, 1 / (1 + width)):
                tried = replace(best, **{name: getattr(best, name) * factor})
                while (now := error(tried)) < least:
                    best, least = tried, now
                    tried = replace(best, **{name: getattr(best, name) * factor})
    return best


def _error(ran: Run, point: Measured) -> float:
    """Of the rate, and of the replica's CPU time."""
    rate, cpu = ran.rate / point.rate, ran.cpu["replica"] / point.cpu["replica"]
    return math.log(rate) ** 2 + CPU_WEIGHT * math.log(cpu) ** 2
