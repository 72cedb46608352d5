"""What was measured, as a file, as tables and as figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.growth.curves import CLIENTS, LONGEST, REPLICAS, SIZES, TOKENS, Point
from benchmarks.http.figures import Figure, Line
from benchmarks.http.report import SCHEMA, Cell, Machine, cell_of, machine_of, open_report
from benchmarks.http.tables import machine_line, paragraph, table

AXES = {CLIENTS: "clients", SIZES: "megapixels of an image", TOKENS: "tokens of an answer", REPLICAS: "replicas"}
LOGARITHMIC = (CLIENTS, SIZES, TOKENS)


@dataclass(frozen=True, slots=True)
class Growth:
    """A whole run."""

    machine: Machine
    settings: Mapping[str, Any]
    points: Sequence[Point] = ()

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)


def read(path: Path) -> Growth:
    """The run in a file.

    Raises:
        SystemExit: It has none.
    """
    with open_report(path) as content:
        points = [Point(one["curve"], one["x"], cell_of(one["cell"])) for one in content["points"]]
        return Growth(machine_of(content), content["settings"], points)


def section(growth: Growth, plots: str) -> str:
    """Figures and tables. ``plots``: where the figures are, seen from the page."""
    settings = growth.settings
    parts = [
        machine_line(growth.machine),
        paragraph(
            f"Our system alone: new JPEGs, greedy. Where nothing else is said, {settings['usual']} clients, 640x480, "
            f"at most {LONGEST} tokens, one replica. On the curve of tokens, answers never end by themselves. All "
            "replicas share the cores."
        ),
        "\n".join(f"![{figure.title}]({plots}/{figure.file})" for figure in figures(growth)),
    ]  # fmt: skip
    parts += [_table_of(growth, curve) for curve in AXES if any(one.curve == curve for one in growth.points)]
    return "\n\n".join(parts)


def _table_of(growth: Growth, curve: str) -> str:
    head = [
        "",
        AXES[curve],
        "requests/s",
        "p50 ms",
        "p95",
        "p99",
        "CPU ms",
        "of it replica",
        "decoding",
        "router",
        "MiB",
    ]
    return table(head, (_row(one) for one in growth.points if one.curve == curve))


def _row(point: Point) -> list[str]:
    cell = point.cell
    cpu = [sum(cell.cpu_ms.values()), *(cell.cpu_ms.get(part, 0.0) for part in ("replica", "decoding", "router"))]
    return [
        cell.model, f"{point.x:.3g}", f"{median(cell.rates):.1f}",
        *(f"{one:.0f}" for one in (cell.times.p50, cell.times.p95, cell.times.p99)),
        *(f"{one:.2f}" for one in cpu), f"{cell.memory_mib:.0f}",
    ]  # fmt: skip


def figures(growth: Growth) -> Iterator[Figure]:
    """Requests a second of each curve, and the times by the number of clients."""
    for curve, label in AXES.items():
        lines = _lines(growth, curve, lambda cell: median(cell.rates))
        if lines:
            title = f"Requests a second by {label}"
            yield Figure(f"growth-{curve}.svg", title, label, "requests/s", lines, log=curve in LOGARITHMIC)
    if times := _lines(growth, CLIENTS, lambda cell: cell.times.p95):
        yield Figure("growth-p95.svg", "Time that 95 of 100 answers take", AXES[CLIENTS], "ms", times, log=True)


def _lines(growth: Growth, curve: str, value: Callable[[Cell], float]) -> list[Line]:
    points = [one for one in growth.points if one.curve == curve]
    return [
        Line(model, [one.x for one in points if one.cell.model == model],
             [round(value(one.cell), 2) for one in points if one.cell.model == model])
        for model in dict.fromkeys(one.cell.model for one in points)
    ]  # fmt: skip
