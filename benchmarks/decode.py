"""What it costs to decode images in processes instead of threads, and how long a small image waits among big ones.

    python -m benchmarks.decode miniatures/florence-2-base miniatures/blip-large

Each checkpoint gets two engines in this process, which answer new images of 640x480 in turns, so that both meet the
same minutes of the machine. Rates are medians over the rounds, ratios medians of the rounds' own. CPU seconds are
those of the process and of the decoding processes. Then the second engine gets many images of 40 megapixels at once,
and small ones beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.types import Request, Sampling

TOKENS = 16
CACHE_BYTES = 64 * 1024**2
BIG_SIDE = 6320
SMALL_REQUESTS = 20


@dataclass(frozen=True, slots=True)
class Round:
    """Requests a second and CPU seconds a request."""

    rate: float
    cpu_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every checkpoint and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--requests", type=int, default=48, help="requests in each round (48)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of each engine (6)")
    parser.add_argument("--processes", type=int, default=2, help="decoding processes, and threads of the other (2)")
    parser.add_argument("--big", type=int, default=64, help="images of 40 megapixels at once (64)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{'':18}{'c':>4}{'threads/s':>11}{'processes/s':>13}{'ratio':>7}{'CPU ms':>9}{'CPU ms':>9}{'ratio':>7}")
    for folder in options.checkpoints:
        _measure(folder, options)
    return 0


def _measure(folder: Path, options: argparse.Namespace) -> None:
    loaded = load(folder, dtype="float32", device="cpu")
    config = {"max_waiting": 256, "cache_bytes": CACHE_BYTES, "prepare_threads": options.processes}
    threads = Engine(loaded, EngineConfig(**config))
    processes = Engine(loaded, EngineConfig(**config, decode_processes=options.processes))
    with threads, processes:
        images = _images()
        for concurrency in (1, 16):
            for engine in (threads, processes):
                _round(engine, images, 8, concurrency)  # to warm up
            pairs = [
                tuple(_round(engine, images, options.requests, concurrency) for engine in (threads, processes))
                for _ in range(options.rounds)
            ]
            print(f"{folder.name:18}{concurrency:4}{_columns(pairs)}", flush=True)
        if options.big:
            print(f"{folder.name:18}{asyncio.run(_crowd(processes, images, options.big))}", flush=True)


def _columns(pairs: Sequence[tuple[Round, ...]]) -> str:
    before, after = zip(*pairs, strict=True)
    rates = [median(one.rate for one in rounds) for rounds in (before, after)]
    cpu = [1000 * median(one.cpu_s for one in rounds) for rounds in (before, after)]
    rate_ratio = median(new.rate / old.rate for old, new in pairs)
    cpu_ratio = median(new.cpu_s / old.cpu_s for old, new in pairs)
    return f"{rates[0]:11.1f}{rates[1]:13.1f}{rate_ratio:7.2f}{cpu[0]:9.1f}{cpu[1]:9.1f}{cpu_ratio:7.2f}"


def _round(engine: Engine, images: Iterator[bytes], count: int, concurrency: int) -> Round:
    waiting = list(itertools.islice(images, count))
    cpu, began = _cpu_s(), time.perf_counter()
    asyncio.run(_answer(engine, waiting, concurrency))
    return Round(count / (time.perf_counter() - began), (_cpu_s() - cpu) / count)


async def _answer(engine: Engine, waiting: list[bytes], concurrency: int) -> None:
    async def client() -> None:
        while waiting:
            await engine.complete(_request(waiting.pop()))

    await asyncio.gather(*(client() for _ in range(concurrency)))


async def _crowd(engine: Engine, images: Iterator[bytes], count: int) -> str:
    """Milliseconds of small requests, one after the other, while ``count`` big images are decoded."""
    big = _big()
    began = time.perf_counter()
    crowd = [asyncio.create_task(engine.complete(_request(big + bytes([number])))) for number in range(count)]
    await asyncio.sleep(1)
    small = []
    for image in itertools.islice(images, SMALL_REQUESTS):
        asked = time.perf_counter()
        await engine.complete(_request(image))
        small.append(1000 * (time.perf_counter() - asked))
    left = sum(not task.done() for task in crowd)
    await asyncio.gather(*crowd)
    return (
        f"beside {count} images of {BIG_SIDE}x{BIG_SIDE}, of which {left} still waited: {SMALL_REQUESTS} small ones "
        f"took {median(small):.0f} ms, at most {max(small):.0f} ms; all took {time.perf_counter() - began:.0f} s"
    )


def _request(image: bytes) -> Request:
    return Request(image, sampling=Sampling(max_tokens=TOKENS))


def _cpu_s() -> float:
    """CPU seconds of this process and its children, those that have ended included."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ticks = os.sysconf("SC_CLK_TCK")
    stats = [_stat(path) for path in Path("/proc").glob("[0-9]*/stat")]
    children = [stat for stat in stats if stat[1:2] == [str(os.getpid())]]
    return sum(one.ru_utime + one.ru_stime for one in own) + sum(int(c[11]) + int(c[12]) for c in children) / ticks


def _stat(path: Path) -> list[str]:
    """The fields of a process behind its name: the second is its parent, the 12th and 13th are its CPU time."""
    try:
        return path.read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:  # it has just ended
        return []


def _images() -> Iterator[bytes]:
    """Photograph-like JPEGs of 640x480, all different."""
    random = np.random.default_rng(0)
    while True:
        coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        yield _jpeg(coarse.resize((640, 480), Image.Resampling.BICUBIC))


def _big() -> bytes:
    coarse = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    return _jpeg(coarse.resize((BIG_SIDE, BIG_SIDE), Image.Resampling.BICUBIC))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
