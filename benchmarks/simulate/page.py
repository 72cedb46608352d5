"""Tables and figures of the simulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.http.figures import Figure, Line
from benchmarks.http.tables import paragraph, table
from benchmarks.simulate.calibrate import CLIENTS, REPLICAS, Calibration, Measured
from benchmarks.simulate.controller_costs import Controller
from benchmarks.simulate.fleets import P99_S, REFUSED, Row
from benchmarks.simulate.system import Run

WANTED = 0.15
"""The greatest error of a rate that is called good."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A point that was measured, and the simulation of it."""

    model: str
    point: Measured
    ran: Run

    @property
    def error(self) -> float:
        """Of the rate, as a share."""
        return self.ran.rate / self.point.rate - 1


def comparison(calibration: Calibration, compared: Sequence[Compared]) -> str:
    """What was measured and what is predicted, with what lies outside :data:`WANTED`."""
    parts = [paragraph(f"Measured on {calibration.date}; {calibration.machine}.")]
    for curve, head in ((REPLICAS, "replicas"), (CLIENTS, "clients")):
        chosen = [one for one in compared if one.point.curve == curve]
        heads = ["", head, "measured/s", "simulated/s", "error %", "rounds differ %", "p95 ms", "simulated", "error %"]
        parts.append(table(heads, map(_compared, chosen)))
    outside = [one for one in compared if abs(one.error) > WANTED]
    named = ", ".join(f"{one.model} with {getattr(one.point, one.point.curve)} {one.point.curve}" for one in outside)
    parts.append(paragraph(f"Rates outside {WANTED:.0%}: {named or 'none'}, of {len(compared)}."))
    return "\n\n".join(parts)


def _compared(one: Compared) -> list[str]:
    point, ran = one.point, one.ran
    return [
        one.model, str(getattr(point, point.curve)), f"{point.rate:.1f}", f"{ran.rate:.1f}", f"{100 * one.error:+.0f}",
        f"{100 * point.spread:.0f}", f"{1000 * point.p95:.0f}", f"{1000 * ran.p95:.0f}",
        f"{100 * (ran.p95 / point.p95 - 1):+.0f}",
    ]  # fmt: skip


def fleets_table(rows: Sequence[Row], controller: Controller) -> str:
    """What each fleet sustains."""
    heads = ["", "replicas", "routers", "nodes", "requests/s", "p50 ms", "p99 ms", "busy first", "routers %",
             "replicas %", "controller's cores", "a change takes it ms", "$ for 1,000"]  # fmt: skip
    note = (
        f"Sustained: 99 of 100 answers within {P99_S:g} s, and fewer than {REFUSED:.1%} refused. The controller was "
        f"measured on {controller.source}."
    )
    once = {(one.fleet, one.replicas, one.routers): one for one in rows}  # small fleets have no use for more routers
    return "\n\n".join([paragraph(note), table(heads, map(_row, once.values()))])


def _row(one: Row) -> list[str]:
    return [
        one.fleet, str(one.replicas), str(one.routers), str(one.nodes), f"{one.rate:.0f}", f"{1000 * one.p50:.0f}",
        f"{1000 * one.p99:.0f}", one.stop.value, f"{100 * one.router_busy:.0f}", f"{100 * one.replica_busy:.0f}",
        f"{one.controller:.2f}", f"{1000 * one.change_s:.1f}", f"{one.dollars:.5f}",
    ]  # fmt: skip


def figures(compared: Sequence[Compared], rows: Sequence[Row]) -> Iterator[Figure]:
    """Measured and predicted by replicas, and what the fleets do."""
    lines = [
        Line(f"{model}, {word}", [one.point.replicas for one in chosen], rates(chosen))
        for model in dict.fromkeys(one.model for one in compared)
        for chosen in [[one for one in compared if one.model == model and one.point.curve == REPLICAS]]
        for word, rates in (("measured", _measured), ("simulated", _simulated))
    ]
    yield Figure("simulate-replicas.svg", "measured and simulated", "replicas", "requests/s", lines)
    lines = [
        Line(f"{fleet}, {'8 routers at most' if capped else 'as many routers as are of use'}",
             [one.replicas for one in chosen], [one.rate / one.replicas for one in chosen])
        for fleet in dict.fromkeys(one.fleet for one in rows)
        for capped in (False, True)
        for chosen in [[one for one in rows if one.fleet == fleet and one.capped == capped]]
    ]  # fmt: skip
    yield Figure("simulate-fleets.svg", "what each replica gets to do", "replicas", "requests/s a replica", lines, True)


def _measured(chosen: Sequence[Compared]) -> list[float]:
    return [one.point.rate for one in chosen]


def _simulated(chosen: Sequence[Compared]) -> list[float]:
    return [one.ran.rate for one in chosen]
