"""Figures: what they show, and their drawing by the interpreter that has matplotlib."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.http.report import Report
from benchmarks.http.servers import ROOT


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a figure."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Figure:
    """Lines over an axis.

    Attributes:
        file: The name of the file, whose end says the format.
        log: Whether the horizontal axis is logarithmic.
    """

    file: str
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log: bool = False


def figures_of(report: Report) -> Iterator[Figure]:
    """For each model, requests a second by the number of clients, and good answers by the rate of arrivals."""
    for model in dict.fromkeys(cell.model for cell in report.cells):
        yield _closed(report, model)
        if any(one.model == model for one in report.steps):
            yield _arriving(report, model)


def _closed(report: Report, model: str) -> Figure:
    cells = [one for one in report.cells if one.model == model]
    lines = [
        Line(name, [one.clients for one in cells if one.system == name],
             [median(one.rates) for one in cells if one.system == name])
        for name in dict.fromkeys(one.system for one in cells)
    ]  # fmt: skip
    return Figure(f"http-{model}.svg", model, "clients", "requests/s", lines, log=True)


def _arriving(report: Report, model: str) -> Figure:
    steps = [one for one in report.steps if one.model == model]
    lines = [
        Line(name, [one.offered for one in steps if one.system == name],
             [one.goodput for one in steps if one.system == name])
        for name in dict.fromkeys(one.system for one in steps)
    ]  # fmt: skip
    label = f"answers within {report.settings['objective_s']:g} s, per second"
    return Figure(f"arrivals-{model}.svg", f"{model}, arrivals at random", "requests/s that arrive", label, lines)


def draw(figures: Sequence[Figure], folder: Path, python: Path) -> None:
    """Write each figure into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(python), "-m", "benchmarks.http.plots", str(folder.resolve())]
    content = json.dumps([asdict(one) for one in figures])
    subprocess.run(command, cwd=ROOT, input=content, text=True, check=True)  # noqa: S603  # our own command
