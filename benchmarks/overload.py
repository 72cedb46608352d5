"""python -m benchmarks.overload: what becomes of requests when more come than can be answered.

    python -m benchmarks.overload                     three times what the system can do, for 20 s
    python -m benchmarks.overload --times 10 --seconds 60 --apart
    python -m benchmarks.overload --times 10 --seconds 60 --apart --device

It starts the system as `make serve` does, with one model, and prints one line for each load: as many clients as fill a
batch, one after the other (what the system can do, and how long its answers take then); requests at random times, so
many times as often; the first load again, at once; and four clients with a key of their own: alone, beside as many
others as fill a batch with them, and beside a flood.

The client shares the cores with the system, unless it is kept ``--apart``: then the last core is the client's, and all
loads are answered by the others. Each line says how many cores the two take, and at most how many requests were under
way; the last one how the system's memory has grown (PSS of all its processes).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import processes
from benchmarks.device_time import DeviceTimes, on_a_device
from benchmarks.http.client import Answered
from benchmarks.http.images import Images
from benchmarks.http.load import Load, arriving, closed
from benchmarks.http.servers import end_on_signals, free_port, running
from benchmarks.http.statistics import poisson_times, quantile, times
from benchmarks.http.systems import chat, config_of, start_with

CLIENTS = 32
"""As many as the local config's ``max_batch``."""
POLITE = 4
CLOSED_S = 5.0
WARM_UP_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    end_on_signals()
    ours, theirs = shared_out(os.sched_getaffinity(0), apart=options.apart)
    os.sched_setaffinity(0, theirs)  # what is started inherits it
    with TemporaryDirectory() as folder:
        port = free_port()
        config = config_of(options.model)
        if options.device:
            config = on_a_device(config, options.model, DeviceTimes())
        with running([start_with(config, port, Path(folder))], Path(folder)) as servers:
            os.sched_setaffinity(0, ours)
            asyncio.run(_Measuring(port, servers[0].process, options).all())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="kosmos-2", help="a miniature (kosmos-2)")
    parser.add_argument("--times", type=float, default=3.0, help="how many times what it can do (3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the overload (20)")
    parser.add_argument("--polite-seconds", type=float, default=CLOSED_S, help="of the four clients' loads (5)")
    parser.add_argument("--tokens", type=int, default=60, help="longest answer (60)")
    parser.add_argument("--apart", action="store_true", help="give the last core to the client alone")
    parser.add_argument("--device", action="store_true", help="the model takes a device's time in place of CPU time")
    return parser


def shared_out(cores: set[int], *, apart: bool) -> tuple[set[int], set[int]]:
    """The cores of the client, and those of the system.

    Raises:
        SystemExit: They are to be apart, and there is only one.
    """
    if not apart:
        return cores, cores
    if len(cores) < 2:
        raise SystemExit("error: --apart needs two cores or more")
    return {max(cores)}, cores - {max(cores)}


class _Measuring:
    """The loads on one system, one after the other."""

    def __init__(self, port: int, process: int, options: argparse.Namespace) -> None:
        self._port = port
        self._process = process
        self._options = options
        images, asked = iter(Images()), chat(options.model, options.tokens)
        self._flood = asked.requests(images, port)
        self._polite = replace(asked, key="polite").requests(images, port)

    async def all(self) -> None:
        options, before = self._options, self._memory_mib()
        await closed(self._port, self._flood, CLIENTS, WARM_UP_S)
        normal = await self._load(f"{CLIENTS} clients", closed(self._port, self._flood, CLIENTS, CLOSED_S))
        rate = options.times * len(normal.counted) / (normal.ended - normal.began)
        over = poisson_times(rate, options.seconds, 1)
        await self._load(f"{rate:.0f} requests/s", arriving(self._port, self._flood, over))
        await self._load("at once afterwards", closed(self._port, self._flood, CLIENTS, CLOSED_S))
        await self._beside_others(rate)
        print(f"memory: {before:.0f} MiB before, {self._memory_mib():.0f} MiB afterwards")

    async def _beside_others(self, rate: float) -> None:
        seconds = self._options.polite_seconds
        await self._load(f"{POLITE} clients alone", closed(self._port, self._polite, POLITE, seconds))
        busy = closed(self._port, self._flood, CLIENTS - POLITE, seconds)
        await self._load(f"beside {CLIENTS - POLITE} others", closed(self._port, self._polite, POLITE, seconds), busy)
        flood = arriving(self._port, self._flood, poisson_times(rate, seconds, 2))
        await self._load(f"beside {rate:.0f} requests/s", closed(self._port, self._polite, POLITE, seconds), flood)

    async def _load(self, name: str, measured: Awaitable[Load], beside: Awaitable[Load] | None = None) -> Load:
        before = self._cpu_s()
        found, *_ = await asyncio.gather(measured, *([beside] if beside is not None else []))
        used = sum(seconds - before.get(process, 0.0) for process, seconds in self._cpu_s().items())
        cores = used / (found.answers[-1].done - found.answers[0].asked)
        print(f"{line(name, found)}, system {cores:.2f}", flush=True)
        return found

    def _cpu_s(self) -> dict[int, float]:
        """Of each process that is there: what has ended is not counted."""
        return {one: processes.cpu_seconds(one) for one in processes.tree(self._process)}

    def _memory_mib(self) -> float:
        return sum(map(processes.proportional_mib, processes.tree(self._process)))


def line(name: str, load: Load) -> str:
    """What came of a load."""
    counted = load.counted
    seconds = load.ended - load.began
    good = times([one.done - one.asked for one in counted if one.status == 200])
    rate = sum(one.status == 200 for one in counted) / seconds
    found = f"{name:28} {rate:6.1f} good/s, p50 {good.p50:.0f}, p95 {good.p95:.0f}, p99 {good.p99:.0f} ms"
    refused = [one for one in counted if one.status != 200]
    if refused:
        waited = [1000 * (one.done - one.asked) for one in refused]
        by_status = ", ".join(f"{count} x {status}" for status, count in Counter(one.status for one in refused).items())
        found += (
            f"; {by_status} after p50 {quantile(waited, 0.5):.0f}, p99 {quantile(waited, 0.99):.0f}, at most "
            f"{max(waited):.0f} ms, {sum(one.retry_after for one in refused)} with Retry-After"
        )
    return f"{found}; at most {outstanding(load.answers)} under way; cores: client {load.client_cpu_s / seconds:.2f}"


def outstanding(answers: Sequence[Answered]) -> int:
    """How many were under way at the same time, at most."""
    changes = sorted([(one.asked, 1) for one in answers] + [(one.done, -1) for one in answers])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


if __name__ == "__main__":
    sys.exit(main())
