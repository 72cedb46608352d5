"""python -m benchmarks.autoscale: a day's load, sped up, on a model that begins and ends with no replica.

    python -m benchmarks.autoscale                        a day in 20 minutes
    python -m benchmarks.autoscale --minutes 4 --json autoscale.json

It starts the system as `make serve` does, on a cluster of its own, with a model that sleeps instead of computing
(``benchmarks.autoscale.model``) and the policy of ``deployments.scaling_policy``, and ends it. Requests come at random
times along the curve of a day with bursts, whatever becomes of those before; half are streamed. It prints an hour of
the day in each line, and then what must be 0: requests without an answer, and answers after their deadline. The exit
code is 1 where they are not, or where replicas are left.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks.autoscale.day import Day
from benchmarks.autoscale.model import Sleep
from benchmarks.autoscale.report import Outcome, Record, is_good, outcome, table
from benchmarks.http.images import Images
from benchmarks.http.load import Load, arriving
from benchmarks.http.systems import chat, config_of
from deployments.scaling_policy import POLICY
from tests.deployments.system import System

MODEL = "sleeper"
TITLE = f"ServeReplica:{MODEL}"
READY_S = 300
LOOK_S = 0.5
DEADLINE_S = 20.0
PROCESS_S = 5.0
"""What the process of a replica takes to start."""
MAX_HELD = 32
LOAD_SHARE = 0.75
"""The peak fills so much of all replicas but one, which the bursts may take."""


def main(arguments: Sequence[str] | None = None) -> Literal[0, 1]:
    """Run, print and judge."""
    options = _parser().parse_args(arguments)
    sleep = Sleep(options.slots, service_s=options.service_s, start_s=options.start_s)
    day = Day(60 * options.minutes, LOAD_SHARE * (options.most - 1) * sleep.rate)
    scaling = scaling_of(options.most, quiet_s=max(8.0, day.seconds / 40))
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), sleep, scaling) as system:
        record = asyncio.run(watch(system, day, back_s=2 * scaling["policy"]["policy_kwargs"]["idle_s"] + 30))
        log = system.log
    print("\n".join(table(record, sleep.rate)))
    if options.json:
        options.json.write_text(record.to_json(), "utf-8")
    if not is_good(record):
        print(log[-5000:], file=sys.stderr)
    return 0 if is_good(record) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoscale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="that the day takes (20)")
    parser.add_argument("--most", type=int, default=6, help="replicas (6)")
    parser.add_argument("--slots", type=int, default=4, help="requests that a replica works on at once (4)")
    parser.add_argument("--service-s", type=float, default=0.5, help="seconds that it takes for one (0.5)")
    parser.add_argument("--start-s", type=float, default=2.0, help="seconds that it loads, beside its process (2)")
    parser.add_argument("--json", type=Path, help="where the whole record is written")
    return parser


def scaling_of(most: int, quiet_s: float) -> dict[str, Any]:
    """The ``autoscaling_config`` of the model."""
    return {
        "min_replicas": 0,
        "max_replicas": most,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "metrics_interval_s": 1,
        "look_back_period_s": 2,
        "policy": {"policy_function": POLICY, "policy_kwargs": {"quiet_s": quiet_s, "idle_s": quiet_s}},
    }


def config_with(sleep: Sleep, scaling: Mapping[str, Any], router: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The local config with this model alone; ``router`` has further settings of its router."""
    config = config_of("blip-large")
    routing = config["applications"][0]
    routing["args"] |= {
        "required_models": [MODEL], "places_per_replica": sleep.slots + sleep.waiting, "request_timeout_s": DEADLINE_S,
        "cold_start_s": sleep.start_s + PROCESS_S, "max_held": MAX_HELD, **router,
    }  # fmt: skip
    deployment = {
        "name": "Replica", "autoscaling_config": dict(scaling), "health_check_period_s": 2,
        "graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": DEADLINE_S + 10,
        "ray_actor_options": {"num_cpus": 0},
    }  # fmt: skip
    args = {"slots": sleep.slots, "waiting": sleep.waiting, "service_s": sleep.service_s, "start_s": sleep.start_s}
    model = {
        "name": MODEL, "route_prefix": None, "import_path": "benchmarks.autoscale.model:build", "args": args,
        "deployments": [deployment],
    }  # fmt: skip
    return {**config, "applications": [routing, model]}


@contextmanager
def running(folder: Path, sleep: Sleep, scaling: Mapping[str, Any], router: Mapping[str, Any] = {}) -> Iterator[System]:
    """The system, until the end of the block."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config_with(sleep, scaling, router)), "utf-8")
    print("starting a system", file=sys.stderr, flush=True)
    system = System(folder, "--config", str(path))
    try:
        system.wait_for("ready:", READY_S)
        yield system
    finally:
        system.end()


async def watch(system: System, day: Day, back_s: float, deadline_s: float = DEADLINE_S, seed: int = 1) -> Record:
    """The load of the day, and then the time until no replica is left, at most ``back_s``."""
    record = Record(day, deadline_s)
    arrivals, images = day.arrivals(seed), iter(Images(4, (64, 48)))
    began, over = time.perf_counter(), asyncio.Event()
    looking = asyncio.create_task(_look(system, record, began, over))
    ways = (False, True)
    asked = [chat(MODEL, 8, streaming=streamed).requests(images, system.port) for streamed in ways]
    loads = await asyncio.gather(*(arriving(system.port, asked[way], arrivals[way::2], streaming=way) for way in ways))
    for way in ways:
        record.outcomes += _outcomes(loads[way], began, streamed=way)
    over.set()
    with suppress(TimeoutError):
        await asyncio.wait_for(looking, back_s)
    return record


async def _look(system: System, record: Record, began: float, over: asyncio.Event) -> None:
    """Count the replicas, until the load is over and none is left."""
    count = 0
    while count or not over.is_set():
        count = len(await asyncio.to_thread(system.processes, TITLE))
        record.processes.append((time.perf_counter() - began, count))
        await asyncio.sleep(LOOK_S)


def _outcomes(load: Load, began: float, *, streamed: bool) -> Iterator[Outcome]:
    for one in load.answers:
        yield outcome(began, one.asked, one.done, one.status, one.body, streamed=streamed, retry=one.retry_after)


if __name__ == "__main__":
    sys.exit(main())
