"""python -m benchmarks.http: the whole system over HTTP, beside LitServe, Ray Serve's own batching and transformers.

    python -m benchmarks.http                               full (`make bench`): about 20 minutes
    python -m benchmarks.http --scale quick                 `make bench BENCH=quick`: under 4 minutes
    python -m benchmarks.http --models blip-large --clients 1,32 --rounds 3
    python -m benchmarks.http --read benchmarks/results/http.json --markdown docs/benchmarks.md

It starts our system as `make serve` does, with one model, LitServe and a plain Ray Serve application, each around the
same checkpoint, on free ports, and ends them. Every request is a new JPEG. Only one system is under load at a time;
they take turns, and the ratio is the median of the rounds' ratios. It prints rows as they are measured, and writes
http.json and plots into a folder that git ignores.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from benchmarks.environment import interpreter
from benchmarks.http.figures import draw, figures_of
from benchmarks.http.measure import measure_model
from benchmarks.http.plan import SCALES, Plan
from benchmarks.http.report import Cell, Report, Step, machine, read
from benchmarks.http.servers import ROOT, end_on_signals
from benchmarks.http.tables import page_section, put

MODELS = ("blip-large", "florence-2-base", "kosmos-2")
RESULTS = ROOT / "benchmarks" / "results"
"""Where results go; git ignores it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or read a report, and write what is asked for."""
    options = _parser().parse_args(arguments)
    report = read(options.read) if options.read else _measure(options)
    if options.markdown:
        put(options.markdown, "http", page_section(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", choices=sorted(SCALES), default="full", help="how much is measured (full)")
    parser.add_argument("--models", type=names, default=MODELS, help=f"by comma; miniatures ({','.join(MODELS)})")
    parser.add_argument("--clients", type=_levels, help="numbers of clients, by comma, in place of the scale's")
    parser.add_argument("--rounds", type=int, help="rounds, in place of the scale's")
    parser.add_argument("--seconds", type=float, help="of each turn, in place of the scale's")
    parser.add_argument("--objective", type=float, help="seconds within which an answer is a good one (1)")
    parser.add_argument("--no-hold", action="store_true", help="let systems idle while another one is measured")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where http.json and the plots are written")
    parser.add_argument("--read", type=Path, metavar="JSON", help="measure nothing: read this report")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the tables between the page's marks")
    return parser


def names(text: str) -> tuple[str, ...]:
    """Names by comma."""
    return tuple(text.split(","))


def _levels(text: str) -> tuple[int, ...]:
    levels = tuple(map(int, text.split(",")))
    if min(levels) < 1:
        raise ValueError(text)
    return levels


def plan_of(options: argparse.Namespace) -> Plan:
    """The scale, with what was chosen otherwise."""
    chosen = {
        "clients": options.clients, "rounds": options.rounds, "seconds": options.seconds,
        "objective_s": options.objective,
    }  # fmt: skip
    plan = replace(SCALES[options.scale], **{name: value for name, value in chosen.items() if value is not None})
    return replace(plan, hold=plan.hold and not options.no_hold)


def _measure(options: argparse.Namespace) -> Report:
    end_on_signals()
    plan, python = plan_of(options), interpreter()
    load, date = os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M")
    cells: list[Cell] = []
    steps: list[Step] = []
    idle: dict[str, dict[str, float]] = {}
    report = Report(machine(date, load), {**asdict(plan), "scale": options.scale, "models": options.models})
    for model in options.models:
        for found in measure_model(model, plan, python, note):
            if isinstance(found, Cell):
                cells.append(found)
                print(cell_line(found), flush=True)
            elif isinstance(found, Step):
                steps.append(found)
                print(step_line(found), flush=True)
            else:
                idle[model] = found
            report = replace(report, machine=machine(date, load), idle_cpu=idle, cells=cells, steps=steps)
            _write(report, options.folder)  # at once: what was measured is kept if something later fails
    draw(list(figures_of(report)), options.folder, python)
    print(page_section(report))
    return report


def _write(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "http.json").write_text(report.to_json(), "utf-8")


def note(line: str) -> None:
    """Say what is being done."""
    print(line, file=sys.stderr, flush=True)


def cell_line(cell: Cell) -> str:
    """A row of the table that is printed as it is measured."""
    parts = " ".join(f"{name} {value:.1f}" for name, value in cell.cpu_ms.items())
    times = (cell.times.p50, cell.times.p95, cell.times.p99, cell.first.p50)
    seen = "p50 {:5.0f}  p95 {:5.0f}  p99 {:5.0f} ms, first {:5.0f}".format(*times)
    return (
        f"{cell.model:16} {cell.system:15} c={cell.clients:<4}{median(cell.rates):7.1f}/s  "
        f"{seen if cell.times.p50 else ' ' * len(seen)}  CPU {sum(cell.cpu_ms.values()):5.1f} ms ({parts})  "
        f"{cell.memory_mib:5.0f} MiB  {cell.differ} of {cell.answers} differ"
    )


def step_line(step: Step) -> str:
    """Likewise, of arrivals."""
    return (
        f"{step.model:16} {step.system:15} {step.offered:6.1f} a second arrive: {step.goodput:6.1f}/s good, "
        f"p50 {step.times.p50:6.0f}  p95 {step.times.p95:6.0f} ms, {step.failed} failed"
        f"{'' if step.holds else '  (breaks)'}"
    )


if __name__ == "__main__":
    sys.exit(main())
