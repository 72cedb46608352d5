"""How long a replica takes to start, by part, and how much memory several of them share. JSON lines.

    .venv/bin/python -m benchmarks.start miniatures/blip-large
    .venv/bin/python -m benchmarks.start weights/blip-large --replicas 1,2,4 --weights-cache /var/tmp/weights
    .venv/bin/python -m benchmarks.start --system

Each run is a new process that imports what Serve's replicas import and does what they do, without a cluster. CPU
seconds say more than those of a clock on a machine that does other things, too. ``--system`` starts what ``make serve``
does, and waits until it is ready.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, Any

from benchmarks import processes
from benchmarks.http.servers import ROOT, Start, free_port, running

MEMORY: Mapping[str, Callable[[int], float]] = {
    "Pss": processes.proportional_mib,
    "Rss": lambda process: processes.memory(process).resident,
}
"""How the MiB of a process are counted: in Pss, a page that n processes share counts 1/n in each. The processes that
decode for it are not among them."""
KV_BYTES = 1 << 28


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a JSON line for each part of a start, and one for each number of replicas; or one for the system."""
    options = _parser().parse_args(arguments)
    if options.measure:
        _replica(options.checkpoint, options.weights_cache, options.dtype)
    elif options.system:
        for _ in range(options.runs):
            _print(system=start_system(options.config))
    else:
        for count in options.replicas:
            for line in measure(options, count):
                _print(**line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description="Measure the start of a replica.")
    parser.add_argument("checkpoint", nargs="?", default=str(ROOT / "miniatures/blip-large"))
    parser.add_argument("--runs", type=int, default=3, help="starts, of which the median is printed")
    parser.add_argument("--replicas", type=_numbers, default=(1,), metavar="N,N", help="processes that start at once")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--weights-cache", type=Path, metavar="FOLDER", help="as the setting weights_cache")
    parser.add_argument("--system", action="store_true", help="measure the whole system instead")
    parser.add_argument("--config", type=Path, default=ROOT / "serve_config.local.yaml", help="of the system")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _print(**line: object) -> None:
    print(json.dumps(line), flush=True)


def measure(options: argparse.Namespace, replicas: int) -> Iterator[dict[str, Any]]:
    """Start so many processes at once, several times: a line for each part, then one about memory."""
    runs = [_start_replicas(options, replicas) for _ in range(options.runs)]
    started = [parts for all_parts, _ in runs for parts in all_parts]
    for part in started[0]:
        yield {"replicas": replicas, "part": part} | {
            key: round(median(parts[part][key] for parts in started), 3) for key in ("cpu_s", "wall_s")
        }
    for field in MEMORY:
        yield {"replicas": replicas, "memory": field, "mib": round(median(memory[field] for _, memory in runs))}


def _start_replicas(options: argparse.Namespace, count: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The parts of each process, and the memory of all together while all run."""
    command = [sys.executable, "-m", "benchmarks.start", options.checkpoint, "--measure", "--dtype", options.dtype]
    if options.weights_cache is not None:
        command += ["--weights-cache", str(options.weights_cache)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(count)
    ]
    try:
        parts = [json.loads(_pipe(process.stdout).readline()) for process in started]
        memory = {field: sum(mib(process.pid) for process in started) for field, mib in MEMORY.items()}
    finally:
        for process in started:
            process.communicate()  # closes its input, which ends it
    return parts, memory


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


class Parts:
    """CPU and wall seconds of the parts of a start; the first begins with the process."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}
        self._cpu, self._wall = 0.0, _process_began()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done within it, and since the last part."""
        yield
        cpu, wall = time.process_time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        self.seconds[name] = {"cpu_s": cpu - self._cpu, "wall_s": wall - self._wall}
        self._cpu, self._wall = cpu, wall


def _process_began() -> float:
    """In seconds since the machine started; the kernel counts them in hundredths."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _replica(checkpoint: str, weights_cache: Path | None, dtype: str) -> None:
    """Do what a replica does until it has answered twice, print the parts, and stay until the input ends."""
    parts = Parts()
    with parts.part("interpreter"):
        pass
    with parts.part("import ray.serve"):
        import ray.serve  # noqa: F401
    with parts.part("import deployments"):
        from deployments.config import ModelConfig
        from deployments.replica import Replica
    with parts.part("import torch"):
        import torch
    with parts.part("import vlm"):
        import vlm.engine.engine
        import vlm.loading  # noqa: F401
        from vlm.engine.config import EngineConfig
        from vlm.image.sample import sample_image
        from vlm.types import Request, Sampling

        torch.set_num_threads(1)
        images = [sample_image(seed) for seed in range(2)]
    engine = EngineConfig(max_batch=16, max_waiting=64, cache_bytes=KV_BYTES, prepare_threads=2, decode_processes=2)
    settings: dict[str, Any] = {} if weights_cache is None else {"weights_cache": str(weights_cache.resolve())}
    config = ModelConfig(checkpoint=checkpoint, dtype=dtype, device="cpu", threads=1, engine=engine, **settings)
    with parts.part("load and start"):
        replica = Replica(config)
    for number, image in enumerate(images, start=1):
        with parts.part(f"request {number}"):
            _answer(replica, Request(image, sampling=Sampling(max_tokens=4)))
    _print(**parts.seconds)
    sys.stdin.read()


def _answer(replica: Any, request: Any) -> None:
    import asyncio

    chunk = asyncio.run(replica.answer(request))
    assert chunk.error is None, chunk.error


def start_system(config: Path) -> dict[str, float]:
    """Seconds until everything is ready, and the CPU seconds of all its processes until then."""
    port = free_port()
    command = [sys.executable, "-m", "deployments.local", "--port", str(port), "--config", str(config.resolve())]
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        with running([Start("the system", command, port, "/readyz", {})], Path(folder)) as (server,):
            ready = time.monotonic() - began
            all_processes = processes.tree(server.process)
            cpu = sum(processes.cpu_seconds(one) + processes.reaped_seconds(one) for one in all_processes)
    return {"wall_s": round(ready, 1), "cpu_s": round(cpu, 1)}


if __name__ == "__main__":
    sys.exit(main())
