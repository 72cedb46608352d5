"""Whether a running system still holds anything two seconds after its clients have left their streams.

    .venv/bin/python -m benchmarks.abandoned --url http://127.0.0.1:8000 --model florence-2-base

Many clients ask for long answers at once and each closes its connection at a random moment. What the router holds is
then read from its status, until it is nothing; the exit status is 1 if that takes longer than ``--within`` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random
import time
from collections.abc import Sequence
from typing import Any

import httpx2

from vlm.image.sample import sample_image

PAUSE_S = 0.05
"""Between two looks at the status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Leave the streams, look, and print what was found."""
    return asyncio.run(measure(parser().parse_args(arguments)))


def parser() -> argparse.ArgumentParser:
    """What reads the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.abandoned")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="florence-2-base")
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--leave-s", type=float, default=2.0, help="the latest moment at which a client leaves")
    parser.add_argument("--within", type=float, default=2.0, help="seconds after which nothing may be held")
    parser.add_argument("--seed", type=int, default=0)
    return parser


async def measure(options: argparse.Namespace, transport: httpx2.AsyncBaseTransport | None = None) -> int:
    """The exit status; ``transport`` replaces the network."""
    rng = random.Random(options.seed)  # noqa: S311  # moments, and no secrets
    gate = asyncio.Semaphore(options.at_once)
    async with httpx2.AsyncClient(base_url=options.url, timeout=60, transport=transport) as client:
        moments = [rng.random() * options.leave_s for _ in range(options.streams)]
        answered = await asyncio.gather(
            *(_leave(client, options.model, at, moment, gate) for at, moment in enumerate(moments))
        )
        left = time.monotonic()
        held = await _held(client)
        print(f"{options.streams} streams, {sum(answered)} answered before their client left, {held} places held")
        while held and time.monotonic() - left < options.within:
            await asyncio.sleep(PAUSE_S)
            held = await _held(client)
    print(f"{held} places held {time.monotonic() - left:.2f} s after the last client left")
    return 1 if held else 0


async def _leave(client: httpx2.AsyncClient, model: str, at: int, moment_s: float, gate: asyncio.Semaphore) -> bool:
    """Whether the answer was complete before the client left."""
    async with gate:
        try:
            async with (
                asyncio.timeout(moment_s),
                client.stream("POST", "/v1/chat/completions", json=body(model, at)) as answer,
            ):
                async for _ in answer.aiter_bytes():
                    pass
        except TimeoutError:
            return False
        return True


def body(model: str, seed: int) -> dict[str, Any]:
    """A request for a long answer about an image that nobody else has."""
    url = f"data:image/jpeg;base64,{base64.b64encode(sample_image(seed)).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": content}]
    return {"model": model, "messages": messages, "stream": True, "max_tokens": 512, "repetition_penalty": 10.0}


async def _held(client: httpx2.AsyncClient) -> int:
    status = (await client.get("/v1/status")).json()
    return sum(model["places"]["held"] for model in status["models"])


if __name__ == "__main__":
    raise SystemExit(main())
