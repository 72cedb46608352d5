"""How much longer four models at once take than the slowest of them, over Serve, from replicas in their own processes.

    .venv/bin/python -m benchmarks.compare_time

The replicas wait in place of computing, as they do where each has a GPU, so that what is measured is the router's: one
core would otherwise be shared by four models. Requests take turns: the slowest model alone, and all four compared.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from statistics import median
from typing import Any

import httpx

from router.app import build
from tests.router.cluster import WITHOUT_TOKEN, cluster
from tests.router.world import CHAT, body, script, words
from vlm.types import Chunk, ModelInfo, Request

SECONDS = {"blip-large": 0.1, "florence-2-base": 0.2, "kosmos-2": 0.3, "moondream-2": 0.4}
"""What each takes for an answer."""
SLOWEST = max(SECONDS, key=lambda name: SECONDS[name])


class Waiting:
    """A replica that answers after so many seconds."""

    def __init__(self, name: str, seconds: float) -> None:
        self._info = ModelInfo(name, name, None, 1, "float32", "cpu")
        self._seconds = seconds

    async def describe(self) -> ModelInfo:
        """What is loaded."""
        return self._info

    async def answer(self, request: Request) -> Chunk:
        """A whole answer."""
        return [chunk async for chunk in self.generate(request)][-1]

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:  # noqa: ARG002  the router calls it so
        """The same in parts."""
        chunks = script(words())
        for chunk in chunks:
            await asyncio.sleep(self._seconds / len(chunks))
            yield chunk


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print one line for whole answers and one for streams."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare_time")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(arguments)
    with cluster() as port:
        from ray import serve

        for name, seconds in SECONDS.items():
            model: Any = serve.deployment(name="Waiting", ray_actor_options={"num_cpus": 0})
            serve.run(model(Waiting).bind(name, seconds), name=name, route_prefix=None)
        serve.run(build(WITHOUT_TOKEN), name="router", route_prefix="/")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            for stream in (False, True):
                print(line(*measure(http, options.rounds, stream=stream), stream=stream), flush=True)
    return 0


def measure(http: httpx.Client, rounds: int, *, stream: bool) -> tuple[list[float], list[float]]:
    """Seconds of the slowest model alone, and of all compared, in turns."""
    alone = {**body(), "model": SLOWEST, "stream": stream}
    compared = {**body(), "model": "compare", "models": sorted(SECONDS), "task": "caption", "stream": stream}
    times = [(_seconds(http, alone), _seconds(http, compared)) for _ in range(rounds + 3)][3:]
    return [one for one, _ in times], [one for _, one in times]


def line(alone: Sequence[float], compared: Sequence[float], *, stream: bool) -> str:
    """What is printed."""
    ratio = median(all_four / slowest for slowest, all_four in zip(alone, compared, strict=True))
    what = "streamed" if stream else "whole"
    one, four = (f"{median(times) * 1000:.0f} ms" for times in (alone, compared))
    return f"{what:9} {SLOWEST} alone {one}, four compared {four}, ratio {ratio:.3f}"


def _seconds(http: httpx.Client, request: dict[str, Any]) -> float:
    began = time.perf_counter()
    http.post(CHAT, json=request).raise_for_status()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
