"""CPU time of the router for one chat request with an image, compared with that of another commit.

    .venv/bin/python benchmarks/router_cpu.py --against v0.1.0

Each process imports one of the two trees, sends requests to its ASGI application and counts its own CPU seconds; a stub
answers in place of a model. The processes take turns, since the speed of a machine drifts. Runs as a file, and not as
a module: the other tree need not have it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent.parent
WARM_UP = 200
"""Requests before the count begins."""
Send = Callable[[dict[str, Any]], Awaitable[None]]

PART_BYTES = 64 * 1024
"""A body arrives in parts of this size: uvicorn reads no more before the application has taken what there is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both trees in turns and print a line for each."""
    options = _parser().parse_args(arguments)
    if options.measure:
        print(asyncio.run(measure(options.requests, options.kib)))
        return 0
    with _tree(options.against) as other:
        trees = {"other": other, "this": HERE}
        times: dict[str, list[float]] = {name: [] for name in trees}
        for _ in range(options.rounds):
            for name, tree in trees.items():
                times[name].append(_in_process(tree, options))
    for name, seconds in times.items():
        print(f"{name:6} {median(seconds) * 1e6:7.0f} us  (from {min(seconds) * 1e6:.0f} to {max(seconds) * 1e6:.0f})")
    ratios = [this / other for this, other in zip(times["this"], times["other"], strict=True)]
    print(f"ratio  {median(ratios):7.3f}     (from {min(ratios):.3f} to {max(ratios):.3f})")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/router_cpu.py")
    parser.add_argument("--against", default="HEAD", help="a commit, or the root of a checkout")
    parser.add_argument("--requests", type=int, default=2000, help="requests of each process")
    parser.add_argument("--rounds", type=int, default=7, help="processes of each tree")
    parser.add_argument("--kib", type=int, default=100, help="size of the image; 0 sends a text alone")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser


@contextmanager
def _tree(against: str) -> Iterator[Path]:
    """A folder with the sources to compare with."""
    if Path(against).is_dir():
        yield Path(against).resolve()
        return
    git = ["git", "archive", against]
    archive = subprocess.run(git, cwd=HERE, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603 - the user's own
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
        file.write(archive)
        file.seek(0)
        with tarfile.open(fileobj=file) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder)


def _in_process(tree: Path, options: argparse.Namespace) -> float:
    """CPU seconds per request of the sources in ``tree``."""
    size = ["--requests", str(options.requests), "--kib", str(options.kib)]
    command = [sys.executable, "-P", __file__, "--measure", *size]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.check_output(command, cwd=tree, env=environment, text=True)  # noqa: S603 - this file
    return float(done)


# In a process of one tree


async def measure(requests: int, kib: int) -> float:
    """CPU seconds per request."""
    from router.app import create_app
    from router.config import RouterConfig

    app = create_app(Stub(), RouterConfig())
    body = body_of(kib)
    for _ in range(WARM_UP):
        await ask(app, body)
    began = time.process_time()
    for _ in range(requests):
        await ask(app, body)
    return (time.process_time() - began) / requests


def body_of(kib: int) -> bytes:
    """A request as the OpenAI SDKs send it."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": "What is in this image?"}]
    if kib:
        url = f"data:image/jpeg;base64,{base64.b64encode(_jpeg(kib)).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    request = {"messages": [{"role": "user", "content": parts}], "model": "blip-large", "max_tokens": 64}
    return json.dumps(request).encode()


def _jpeg(kib: int) -> bytes:
    """An image of noise, whose size in bytes is about what is asked for."""
    import io
    import random

    from PIL import Image

    side = round((kib * 1024 / 0.61) ** 0.5 / 8) * 8  # noise takes 0.61 bytes a pixel at this quality
    noise = Image.frombytes("RGB", (side, side), random.Random(0).randbytes(side * side * 3))  # noqa: S311
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


async def ask(app: Any, body: bytes, key: str = "none") -> None:
    """Send one request, as a server does."""
    starts = iter(range(0, len(body), PART_BYTES))
    status: list[int] = []

    async def receive() -> dict[str, Any]:
        for start in starts:
            end = start + PART_BYTES
            return {"type": "http.request", "body": body[start:end], "more_body": end < len(body)}
        await asyncio.Event().wait()
        raise AssertionError("nothing comes after the body")

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    await app(_scope(len(body), key), receive, send)
    if status != [200]:
        raise SystemExit(f"error: the answer has the status {status}")


def _scope(length: int, key: str) -> dict[str, Any]:
    headers = {
        "host": "127.0.0.1:8000", "accept-encoding": "gzip, deflate", "connection": "keep-alive",
        "accept": "application/json", "content-type": "application/json", "user-agent": "OpenAI/Python 2.0.0",
        "x-stainless-lang": "python", "x-stainless-async": "false", "authorization": f"Bearer {key}",
        "x-stainless-retry-count": "0", "x-stainless-read-timeout": "600", "content-length": str(length),
    }  # fmt: skip
    path = "/v1/chat/completions"
    return {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000), "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip


class Stub:
    """A backend that answers at once."""

    def __init__(self) -> None:
        from vlm.types import Chunk, Completion, Grounding, Timings, Usage

        text = "a red circle left of a blue square"
        completion = Completion(
            text=text,
            token_ids=tuple(range(9)),
            logprobs=(),
            grounding=Grounding("caption", "", text, (640, 480), raw=text),
            finish_reason="stop",
            usage=Usage(image_tokens=577, text_tokens=3, completion_tokens=9),
            timings=Timings(prepare_ms=1.0, queue_ms=1.0, first_token_ms=1.0, total_ms=1.0),
            resolution="default",
        )
        self._chunk = Chunk(completion=completion)

    async def generate(self, model: str, request: Any) -> AsyncGenerator[Any, None]:  # noqa: ARG002
        yield self._chunk

    async def models(self) -> Sequence[Any]:
        return ()

    def capacity(self, model: str) -> Any:  # noqa: ARG002
        from router.admission.capacity import Capacity

        return Capacity(1)

    def serves(self, model: str) -> bool:  # noqa: ARG002
        return True

    def names(self) -> Collection[str]:
        return []

    async def asleep(self, model: str) -> bool:  # noqa: ARG002
        return False


if __name__ == "__main__":
    sys.exit(main())
