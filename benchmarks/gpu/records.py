"""The rows that the benchmark writes, one JSON object a line, and how a stretch of work on a device is timed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

Record = dict[str, Any]


def write(section: str, **values: object) -> None:
    """Write one row to stdout at once: a job that is killed later has lost nothing of what it measured."""
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
    print(json.dumps({"section": section, **rounded}), flush=True)


def log(line: str) -> None:
    """Print a line of progress on stderr."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        size: Name of the synthesised configurations, ``"real"`` or ``"tiny"``.
        rows: Batch sizes of a decode step.
        vision: Batch sizes of the vision encoder.
        concurrency: Requests in flight in the engine.
        steps: Decode steps that are timed.
        requests: Requests at each concurrency, at least.
        tokens: Length of each answer.
        elements: Length of the copy and side of the matrix product that find the device's ceilings.
        images: Number of images that dtypes are compared on.
    """

    size: str
    rows: tuple[int, ...]
    vision: tuple[int, ...]
    concurrency: tuple[int, ...]
    steps: int
    requests: int
    tokens: int
    elements: tuple[int, int]
    images: int


FULL = Scale("real", (1, 4, 16, 64), (1, 4, 16), (1, 8, 64), 32, 16, 20, (2**28, 8192), 15)
DRY = Scale("tiny", (1, 2), (1, 2), (1, 2), 3, 2, 4, (2**16, 128), 1)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, repeat: int = 5) -> float:
    """Median time of ``work``, which runs once before to warm up; its result is complete on the device each time."""
    work()
    synchronize(device)
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return median(times)


def peak_memory_gib(device: torch.device) -> float | None:
    """The most device memory that was allocated at once since the process began; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def peak_reserved_gib(device: torch.device) -> float | None:
    """Likewise with what PyTorch keeps for later, which includes the memory of CUDA graphs between replays."""
    return torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else None
