"""python -m benchmarks.simulate: how the system behaves with 1 to 1,000 replicas, by events in simulated time.

    python -m benchmarks.simulate --sizes 1,3,10                                                        some minutes
    python -m benchmarks.simulate --markdown docs/simulation.md --plots docs/plots                      half an hour
    python -m benchmarks.simulate --calibrate benchmarks/results/growth.json                            some minutes
    python -m benchmarks.simulate --trace rates.txt --fleet cores --sizes 10 --routers 2

It compares the simulation with what was measured on one machine, and then lets fleets grow. `--calibrate` fits the
service times anew to a run of `python -m benchmarks.growth`. `--trace` reads requests a second, one line for each
second, and tells what becomes of them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.environment import interpreter
from benchmarks.http.__main__ import RESULTS
from benchmarks.http.figures import draw
from benchmarks.http.tables import put
from benchmarks.simulate import calibrate, known
from benchmarks.simulate.calibrate import CLIENTS, FILE, REPLICAS, Calibration
from benchmarks.simulate.controller_costs import Controller
from benchmarks.simulate.fleets import SHIPPED_ROUTERS, SIZES, Fleet, Row, rows
from benchmarks.simulate.load import trace
from benchmarks.simulate.page import Compared, comparison, figures, fleets_table
from benchmarks.simulate.system import fleet

LENGTHS = {"blip-large": 17, "florence-2-base": 18, "kosmos-2": 20}
"""Tokens of the answers on the curves where they end by themselves."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Calibrate, follow a trace, or compare and grow."""
    options = _parser().parse_args(arguments)
    if options.calibrate:
        FILE.write_text(_calibrated(options.calibrate).to_json(), "utf-8")
    calibration = calibrate.read()
    chosen = _fleets(calibration, options)
    if options.trace:
        _follow(options, chosen[0])
    elif not options.calibrate:
        _grow(options, calibration, chosen)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calibrate", type=Path, metavar="JSON", help="fit the service times to this growth.json")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="requests a second, one line for each second")
    parser.add_argument("--fleet", choices=("cores", "H100"), action="append", help="of this kind (both)")
    parser.add_argument("--sizes", type=_numbers, default=SIZES, help="replicas, by comma (1 to 1,000)")
    parser.add_argument("--routers", type=int, default=SHIPPED_ROUTERS, help="at most (8, as shipped)")
    parser.add_argument("--core-hour", type=float, default=0.04, help="dollars an hour of a core (0.04)")
    parser.add_argument("--gpu-hour", type=float, default=2.50, help="dollars an hour of an H100 and its host (2.50)")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where simulate.json is written")
    parser.add_argument("--plots", type=Path, help="draw figures into this folder")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the tables between the page's marks")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(one) for one in text.split(","))


def _calibrated(path: Path) -> Calibration:
    growth = json.loads(path.read_text("utf-8"))
    points: dict[str, list[calibrate.Measured]] = {}
    for model, point in calibrate.measured(growth, LENGTHS):
        points.setdefault(model, []).append(point)
    machine = growth["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    words = f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}, {packages}"
    return Calibration(machine["date"], words, points, calibrate.fit(points, known.MODEL))


def _fleets(calibration: Calibration, options: argparse.Namespace) -> list[Fleet]:
    costs = calibration.costs[known.MODEL]
    both = [known.on_cores(costs, options.core_hour), known.on_gpus(costs, options.gpu_hour)]
    return [one for one in both if not options.fleet or one.name in options.fleet]


def _follow(options: argparse.Namespace, one: Fleet) -> None:
    rates = [float(line) for line in options.trace.read_text("utf-8").split()]
    times = trace(rates, random.Random(0))  # noqa: S311  # not for secrets
    ran = fleet(
        one.costs, one.limits, one.node, times, replicas=options.sizes[0], routers=options.routers,
        seconds=len(rates) / 1.5,
    )  # fmt: skip
    print(json.dumps(asdict(ran), indent=1))


def _grow(options: argparse.Namespace, calibration: Calibration, chosen: Sequence[Fleet]) -> None:
    compared = list(compare(calibration))
    print(text := comparison(calibration, compared), flush=True)
    controller, grown = Controller.read(), list[Row]()
    for one in chosen:
        for row in _rows(one, controller, options):
            grown.append(row)
            print(json.dumps(asdict(row), default=str), flush=True)
    print(table := fleets_table(grown, controller))
    options.folder.mkdir(parents=True, exist_ok=True)
    content = {"compared": [*map(asdict, compared)], "fleets": [*map(asdict, grown)]}
    (options.folder / "simulate.json").write_text(json.dumps(content, indent=1, default=str), "utf-8")
    if options.markdown:
        put(options.markdown, "calibration", text)
        put(options.markdown, "fleets", table)
    if options.plots:
        draw(list(figures(compared, grown)), options.plots, interpreter())


def _rows(one: Fleet, controller: Controller, options: argparse.Namespace) -> Iterator[Row]:
    for at_most in (options.routers, None):
        yield from rows(one, controller, options.sizes, at_most)


def compare(calibration: Calibration) -> Iterator[Compared]:
    """Each point of the curves of clients and replicas, and its simulation."""
    for model, points in calibration.points.items():
        for point in points:
            if point.curve in (CLIENTS, REPLICAS):
                yield Compared(model, point, calibrate.run(calibration.costs[model], point))


if __name__ == "__main__":
    sys.exit(main())
