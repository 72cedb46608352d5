"""python -m benchmarks.growth: our system with 1 to 256 clients, larger images, longer answers and 1 to 4 replicas.

    python -m benchmarks.growth                                                       about 12 minutes
    python -m benchmarks.growth --models blip-large --markdown docs/benchmarks.md --plots docs/plots
    python -m benchmarks.growth --read benchmarks/results/growth.json --markdown docs/benchmarks.md --plots docs/plots

It starts the system as `make serve` does, with one model, and ends it. Every curve is walked along several times. It
prints each point, and writes growth.json into a folder that git ignores, and the plots there or where `--plots` says.
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
from benchmarks.growth.curves import SCALES, Point, curves
from benchmarks.growth.page import AXES, Growth, figures, read, section
from benchmarks.http.__main__ import MODELS, RESULTS, names, note
from benchmarks.http.figures import draw
from benchmarks.http.report import machine
from benchmarks.http.servers import end_on_signals
from benchmarks.http.tables import put


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or read a run; draw it, and put it into a page if there is one."""
    options = _parser().parse_args(arguments)
    growth = read(options.read) if options.read else _measure(options)
    plots = options.plots or options.folder
    draw(list(figures(growth)), plots, interpreter())
    if options.markdown:
        seen = os.path.relpath(plots, options.markdown.parent)
        put(options.markdown, "growth", section(growth, seen))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", choices=sorted(SCALES), default="full", help="how much is measured (full)")
    parser.add_argument("--models", type=names, default=MODELS, help=f"by comma; miniatures ({','.join(MODELS)})")
    parser.add_argument("--curves", type=_curves, default=tuple(AXES), help=f"by comma ({','.join(AXES)})")
    parser.add_argument("--rounds", type=int, help="in place of the scale's")
    parser.add_argument("--seconds", type=float, help="under load at each point, in place of the scale's")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where growth.json is written")
    parser.add_argument("--plots", type=Path, help="where the plots are written (the same)")
    parser.add_argument("--read", type=Path, metavar="JSON", help="measure nothing: read this run")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put figures and tables between the page's marks")
    return parser


def _curves(text: str) -> tuple[str, ...]:
    chosen = names(text)
    if not set(chosen) <= set(AXES):
        raise ValueError(text)
    return chosen


def _measure(options: argparse.Namespace) -> Growth:
    end_on_signals()
    chosen = {name: getattr(options, name) for name in ("rounds", "seconds") if getattr(options, name) is not None}
    scale = replace(SCALES[options.scale], **chosen)
    load, date = os.getloadavg()[0], time.strftime("%Y-%m-%d %H:%M")
    points: list[Point] = []
    growth = Growth(machine(date, load), {**asdict(scale), "scale": options.scale, "models": options.models})
    for model in options.models:
        for point in curves(model, scale, options.curves, note):
            points.append(point)
            print(_line(point), flush=True)
            growth = replace(growth, machine=machine(date, load), points=points)
            options.folder.mkdir(parents=True, exist_ok=True)
            (options.folder / "growth.json").write_text(growth.to_json(), "utf-8")
    return growth


def _line(point: Point) -> str:
    cell = point.cell
    return (
        f"{cell.model:16} {point.curve:10} {point.x:7.3g}  {median(cell.rates):7.1f}/s  p50 {cell.times.p50:6.0f}  "
        f"p95 {cell.times.p95:6.0f} ms  CPU {sum(cell.cpu_ms.values()):6.2f} ms  {cell.memory_mib:5.0f} MiB  "
        f"{cell.differ} of {cell.answers} differ"
    )


if __name__ == "__main__":
    sys.exit(main())
