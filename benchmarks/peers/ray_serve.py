"""A plain Ray Serve application: ``python -m benchmarks.peers.ray_serve --folder FOLDER --port PORT --temp FOLDER``.

As Ray's documentation has one write it: ``@serve.batch`` around ``generate``, for batches of up to 32 requests, for
which it waits 5 ms, behind Serve's ordinary HTTP proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import signal
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.captions import Captions, Setting, parser, setting_of

MAX_ONGOING = 1024
"""Requests that a replica takes at once. Serve's default of 5 would leave batches of 32 nearly empty."""


def application(setting: Setting, batch: int, wait_s: float) -> Any:
    """The application that answers ``{"image": base64}`` with ``{"text": ...}``."""

    @serve.deployment(max_ongoing_requests=MAX_ONGOING, ray_actor_options={"num_cpus": 1})
    class Captioning:
        def __init__(self) -> None:
            self._captions = Captions(setting)

        @serve.batch(max_batch_size=batch, batch_wait_timeout_s=wait_s)  # type: ignore[untyped-decorator]
        async def caption(self, images: list[bytes]) -> list[str]:
            return self._captions.of(images)

        async def __call__(self, request: Request) -> dict[str, str]:
            body = await request.json()
            return {"text": await self.caption(base64.b64decode(body["image"]))}

    return Captioning.bind()  # type: ignore[attr-defined]  # Serve's decorator has no types, and neither have others


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    options = _parser().parse_args(arguments)
    ray.init(address="local", include_dashboard=False, logging_level="warning", _temp_dir=options.temp)
    quiet = {"log_level": "WARNING", "enable_access_log": False}
    serve.start(http_options={"host": "127.0.0.1", "port": options.port}, logging_config=quiet)
    app = application(setting_of(options), options.batch, options.wait_ms / 1000)
    serve.run(app, route_prefix="/predict", logging_config=quiet)
    asyncio.run(_interrupted())
    ray.shutdown()


async def _interrupted() -> None:
    ends = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ends.set)
    await ends.wait()


def _parser() -> argparse.ArgumentParser:
    options = parser("python -m benchmarks.peers.ray_serve")
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--temp", required=True, help="an empty folder with a short path, for Ray's sockets and logs")
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--wait_ms", type=float, default=5.0)
    return options


if __name__ == "__main__":
    main()
