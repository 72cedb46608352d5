"""What Ray's controller takes in a fleet, computed from what was measured with few replicas.

Each of its times grows by a constant for each replica; see ``benchmarks.simulate.controller``, which measures them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from statistics import fmean

FILE = Path(__file__).with_name("controller.json")
REPORTS_A_SECOND = 1.0
"""For each router while something changes, which is what a controller must be able to take: ``RayBackend.max_age_s``.
Where nothing does, it is a tenth of that (``quiet_age_s``)."""
QUEUE_KNOWN_S = 10.0
"""How long a handle of Ray Serve's uses a replica's queue length: RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S."""


@dataclass(frozen=True, slots=True)
class Line:
    """``base + each * replicas``."""

    base: float
    each: float

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> Line:
        """Least squares."""
        mean_x, mean_y = fmean(x), fmean(y)
        each = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
        return cls(mean_y - each * mean_x, each)

    def at(self, replicas: float) -> float:
        """The value there."""
        return self.base + self.each * replicas


@dataclass(frozen=True, slots=True)
class Controller:
    """Serve's controller, which is one thread of Python.

    Attributes:
        idle: Cores while nothing happens: health checks.
        report: CPU seconds of a report on all replicas, for which a router asks.
        change: CPU seconds to send the list of replicas to one router when it has changed.
        change_bytes: Of that list.
        source: Where and when it was measured.
    """

    idle: Line
    report: Line
    change: Line
    change_bytes: Line
    source: str

    @classmethod
    def read(cls, path: Path = FILE) -> Controller:
        """As measured."""
        content = json.loads(path.read_text("utf-8"))
        rows: Sequence[Mapping[str, float]] = content["rows"]

        def line(name: str) -> Line:
            return Line.through([one["replicas"] for one in rows], [one[name] for one in rows])

        return cls(
            line("idle_cores"), line("report_s"), line("list_s"), line("list_bytes"),
            f"{content['date']}; {content['machine']}; `{content['command']}`",
        )  # fmt: skip

    def cores(self, replicas: int, routers: int, reports_a_second: float = REPORTS_A_SECOND) -> float:
        """Cores that it would take; there is one for it, so above 1 it falls behind."""
        return self.idle.at(replicas) + routers * reports_a_second * self.report.at(replicas)

    def change_s(self, replicas: int, routers: int) -> float:
        """CPU seconds until all routers know of a replica that comes or goes."""
        return routers * self.change.at(replicas)


def probed(rate: float, replicas: int) -> float:
    """The share of the replicas drawn by a router with this rate whose queue it must ask for first.

    It draws two for each request. One that it has not met for :data:`QUEUE_KNOWN_S` is asked, by a call of its own.
    """
    return exp(-2 * rate / replicas * QUEUE_KNOWN_S)
