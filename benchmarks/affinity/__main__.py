"""Hit rates of the replicas' caches, by how replicas are chosen: Serve's way, or by image.

    python -m benchmarks.affinity                        simulated, 1 to 64 replicas
    python -m benchmarks.affinity --traffic talks        the same; four questions about an image, and never again
    python -m benchmarks.affinity --real                 1 and 4 replicas of a miniature on a Ray cluster of its own

Each replica has a cache of the same size, smaller than the set of images, and gets the same number of requests however
many replicas there are. One that is chosen by chance therefore sees what a single replica would see, unless the same
image comes several times in a short while. Replicas that are chosen by image have four caches together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.affinity import real
from benchmarks.affinity.report import Result, as_json, table
from benchmarks.affinity.simulated import HIT_S, MISS_S, Plan, simulate
from benchmarks.affinity.traffic import talks, zipf

SIMULATED = (1, 2, 4, 8, 16, 64)
REAL = (1, 4)
SEED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    options = _parser().parse_args(arguments)
    results = list(_measured(options) if options.real else _simulated(options))
    print("\n".join(table(results)))
    if options.json is not None:
        options.json.write_text(as_json(results), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.affinity")
    parser.add_argument("--real", action="store_true", help="on a Ray cluster of its own")
    parser.add_argument("--traffic", choices=("zipf", "talks"), default="zipf")
    parser.add_argument("--replicas", type=int, nargs="+")
    parser.add_argument("--images", type=int, help="in the set of zipf; 2000 simulated, 200 real")
    parser.add_argument("--cached", type=int, help="images that a replica keeps; 100 simulated, 20 real")
    parser.add_argument("--requests", type=int, help="for each replica; 3000 simulated, 400 real")
    parser.add_argument("--load", type=float, default=0.7, help="simulated: share of what one replica can answer")
    parser.add_argument("--clients", type=int, default=4, help="real: for each replica")
    parser.add_argument("--json", type=Path, help="a file for the results")
    return parser


def _simulated(options: argparse.Namespace) -> Iterator[Result]:
    images, cached, requests = options.images or 2000, options.cached or 100, options.requests or 3000

    def one(replicas: int, rate: float, *, by_image: bool) -> Result:
        traffic = zipf(images, SEED) if options.traffic == "zipf" else talks(replicas, SEED)
        return simulate(Plan(replicas, cached, requests, rate, by_image), traffic)

    alone = one(1, 1.0, by_image=True).hit_rate
    rate = options.load / (alone * HIT_S + (1 - alone) * MISS_S)
    for replicas in options.replicas or SIMULATED:
        for by_image in (False, True) if replicas > 1 else (True,):
            yield one(replicas, rate, by_image=by_image)


def _measured(options: argparse.Namespace) -> Iterator[Result]:
    images, cached, requests = options.images or 200, options.cached or 20, options.requests or 400
    for replicas in options.replicas or REAL:
        traffic = zipf(images, SEED) if options.traffic == "zipf" else talks(replicas, SEED)
        numbers = [next(traffic) for _ in range(requests * replicas)]
        for by_image in (False, True) if replicas > 1 else (True,):
            plan = real.Plan(replicas, cached, options.clients * replicas, by_image)
            yield real.measure(plan, numbers)


if __name__ == "__main__":
    sys.exit(main())
