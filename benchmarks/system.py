"""Requests per second of a running system, compared with transformers answering one image at a time.

    make serve                                                                                     in one shell
    make setup && .venv/bin/python -m benchmarks.system miniatures/blip-large miniatures/kosmos-2  in another

Each checkpoint folder must be served under its own name, and transformers must be able to run it. Before and after each
level of concurrency, transformers answers a few images of the same kind in this process: the speed of a machine drifts,
so the two rates of a ratio must come from the same minute.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from vlm.checkpoint.files import Checkpoint
from vlm.image.sample import sample_image
from vlm.loading import find_family
from vlm.reference import native_prompt, reference

try:
    import httpx
except ModuleNotFoundError:  # `make serve` installs what serving needs, which does not include it
    sys.exit("error: the benchmark sends its requests with httpx, which is not installed: run `make setup`.")


@dataclass(frozen=True, slots=True)
class Level:
    """One level of concurrency: rates in requests a second, latencies in milliseconds."""

    concurrency: int
    rate: float
    p50_ms: float
    p99_ms: float
    reference_rate: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every checkpoint and print a table."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    levels = [int(level) for level in options.concurrency.split(",")]
    print(f"{'':18}{'c':>4}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'transformers':>14}{'ratio':>8}")
    for folder in options.checkpoints:
        answer = _reference(folder, options.tokens)
        unseen = itertools.count(secrets.randbelow(1_000_000))  # images that no replica has in its caches
        for level in levels:
            seeds = itertools.islice(unseen, options.requests + level)
            bodies = [_body(folder.name, seed, options.tokens) for seed in seeds]
            row = _measure(options.url, bodies, level, answer)
            print(
                f"{folder.name:18}{row.concurrency:4}{row.rate:9.2f}{row.p50_ms:9.1f}{row.p99_ms:9.1f}"
                f"{row.reference_rate:14.2f}{row.rate / row.reference_rate:7.2f}x",
                flush=True,
            )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=".venv/bin/python -m benchmarks.system")
    parser.add_argument("checkpoints", nargs="+", type=Path, help="folders; the last part is the model's name")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of the reference")
    return parser


def _reference(folder: Path, tokens: int) -> Callable[[bytes], tuple[int, ...]]:
    checkpoint = Checkpoint.open(folder)
    processor = find_family(checkpoint)[1].processor(checkpoint)
    beams = checkpoint.generation.get("num_beams", 1)  # the server's default
    return reference(checkpoint, prompt=native_prompt(processor, sample_image(0)), tokens=tokens, beams=beams)


def _body(model: str, seed: int, tokens: int) -> dict[str, object]:
    url = f"data:image/jpeg;base64,{base64.b64encode(sample_image(seed)).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": content}]}


def _measure(url: str, bodies: Sequence[object], level: int, answer: Callable[[bytes], object]) -> Level:
    before = _reference_rate(answer)
    rate, latencies = asyncio.run(_load(url, bodies, level))
    after = _reference_rate(answer)
    ranked = sorted(latencies)
    return Level(level, rate, median(ranked), ranked[int(0.99 * (len(ranked) - 1))], (before + after) / 2)


def _reference_rate(answer: Callable[[bytes], object], images: int = 8) -> float:
    answer(sample_image(0))
    began = time.perf_counter()
    for seed in range(images):
        answer(sample_image(seed))
    return images / (time.perf_counter() - began)


async def _load(url: str, bodies: Sequence[object], level: int) -> tuple[float, list[float]]:
    """Send all bodies, at most ``level`` at once; the first ``level`` are a warm-up. Any status but 200 is an error."""
    gate = asyncio.Semaphore(level)
    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False) as client:

        async def one(body: object) -> float:
            async with gate:
                began = time.perf_counter()
                (await client.post("/v1/chat/completions", json=body)).raise_for_status()
                return 1000 * (time.perf_counter() - began)

        await asyncio.gather(*map(one, bodies[:level]))
        began = time.perf_counter()
        latencies = await asyncio.gather(*map(one, bodies[level:]))
        return len(latencies) / (time.perf_counter() - began), latencies


if __name__ == "__main__":
    sys.exit(main())
