"""python -m benchmarks.overload: what becomes of requests when more come than can be answered.

    python -m benchmarks.overload                     three times what the system can do, for 20 s
    python -m benchmarks.overload --times 10 --seconds 60

It starts the system as `make serve` does, with one model, and prints one line for each load: as many clients as fill a
batch, one after the other (what the system can do, and how long its answers take then); requests at random times, so
many times as often; the first load again, at once; and four clients with a key of their own, alone and beside a flood.
The client shares the cores with the system: the line says how much of a core it takes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.http.images import Images
from benchmarks.http.load import Load, arriving, closed
from benchmarks.http.servers import end_on_signals, free_port, running
from benchmarks.http.statistics import poisson_times, quantile, times
from benchmarks.http.systems import chat, start_ours

CLIENTS = 32
"""As many as the local config's ``max_batch``."""
POLITE = 4
CLOSED_S = 5.0
WARM_UP_S = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    end_on_signals()
    with TemporaryDirectory() as folder:
        port = free_port()
        with running([start_ours(options.model, port, Path(folder))], Path(folder)):
            asyncio.run(_measure(port, options))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="kosmos-2", help="a miniature (kosmos-2)")
    parser.add_argument("--times", type=float, default=3.0, help="how many times what it can do (3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the overload (20)")
    parser.add_argument("--tokens", type=int, default=60, help="longest answer (60)")
    return parser


async def _measure(port: int, options: argparse.Namespace) -> None:
    images = iter(Images())
    asked = chat(options.model, options.tokens)
    flood = asked.requests(images, port)
    polite = replace(asked, key="polite").requests(images, port)
    await closed(port, flood, CLIENTS, WARM_UP_S)
    normal = await closed(port, flood, CLIENTS, CLOSED_S)
    print(line(f"{CLIENTS} clients", normal), flush=True)
    rate = options.times * len(normal.counted) / (normal.ended - normal.began)
    over = await arriving(port, flood, poisson_times(rate, options.seconds, 1))
    print(line(f"{rate:.0f} requests/s", over), flush=True)
    print(line("at once afterwards", await closed(port, flood, CLIENTS, CLOSED_S)), flush=True)
    print(line(f"{POLITE} clients alone", await closed(port, polite, POLITE, CLOSED_S)), flush=True)
    beside, _ = await asyncio.gather(
        closed(port, polite, POLITE, CLOSED_S), arriving(port, flood, poisson_times(rate, CLOSED_S, 2))
    )
    print(line(f"{POLITE} clients beside {rate:.0f} requests/s", beside), flush=True)


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
    return f"{found}; client {load.client_cpu_s / seconds:.2f} cores"


if __name__ == "__main__":
    sys.exit(main())
