"""CPU time of the router for a request that is traced, for one that is not sampled, and with traces off.

    .venv/bin/python -m benchmarks.trace_cpu

One process has three routers over a stub of a model and asks them in turns, since the speed of a machine drifts. What
is sent goes to a collector in another process, which reads it and keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median

from starlette.applications import Starlette

from benchmarks.router_cpu import WARM_UP, Stub, ask, body_of
from router.app import create_app, resilient
from router.config import RouterConfig
from router.tracing.tracing import tracing_of

SHARES = {"off": None, "not sampled": 0.0, "traced": 1.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a line for each router."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace_cpu")
    parser.add_argument("--requests", type=int, default=400, help="requests of each router in a round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kib", type=int, default=100, help="size of the image; 0 sends a text alone")
    parser.add_argument("--collect", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.collect:
        _collect()
    with _collector() as url:
        times = asyncio.run(measure(url, options.requests, options.rounds, body_of(options.kib)))
    for name, seconds in times.items():
        ratio = median(one / off for one, off in zip(seconds, times["off"], strict=True))
        print(f"{name:12} {median(seconds) * 1e6:7.0f} us  ratio {ratio:.3f}")
    return 0


async def measure(url: str, requests: int, rounds: int, body: bytes) -> dict[str, list[float]]:
    """CPU seconds of the whole process per request, by router and round."""
    apps = {name: _app(url, share) for name, share in SHARES.items()}
    times: dict[str, list[float]] = {name: [] for name in apps}
    for app in apps.values():
        for _ in range(WARM_UP):
            await ask(app, body)
    for _ in range(rounds):
        for name, app in apps.items():
            began = time.process_time()
            for _ in range(requests):
                await ask(app, body)
            times[name].append((time.process_time() - began) / requests)
    return times


def _app(url: str, share: float | None) -> Starlette:
    config = RouterConfig() if share is None else RouterConfig(traces=url, trace_share=share)
    tracing = tracing_of(config, dict)
    return create_app(resilient(Stub(), config, tracing), config, tracing=tracing)


# The collector


@contextmanager
def _collector() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.trace_cpu", "--collect"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  this file
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


class _Discard(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
        """Say nothing."""


def _collect() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Discard) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
