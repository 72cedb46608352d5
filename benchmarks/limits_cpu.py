"""CPU time of counting a request against its key's limits: taken, corrected and left, in memory and in Redis.

    .venv/bin/python -m benchmarks.limits_cpu

A request is counted in two scopes (all models, and its own), each with limits of requests, images, tokens and places.
The time is that of this process; Redis runs beside it, and is started where there is a ``redis-server``. With several
requests at once, many share a call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from accounts.types import EVERY_MODEL, Limits
from router.accounts.limits import RateLimits, open_limits
from tests.accounts.servers import program, running_redis

REQUESTS = 3000
ROUNDS = 5
MODEL = "model"
STATED = {name: Limits(10**8, 10**8, 10**12, 10**6) for name in (EVERY_MODEL, MODEL)}


@contextmanager
def places() -> Iterator[dict[str, str | None]]:
    """Where limits are counted: URLs by name, None for memory."""
    if not program("redis-server"):
        yield {"memory": None}
        return
    with running_redis() as server:
        yield {"memory": None, "Redis": server.url}


async def ask(limits: RateLimits, count: int, keys: int) -> None:
    """Do so many requests, one after the other."""
    for number in range(count):
        taken = await limits.take(f"key_{number % keys}", MODEL, STATED, images=1, tokens=1000)
        taken.used(100)
        taken.end()


async def cpu_us(limits: RateLimits, at_once: int, keys: int) -> float:
    """Microseconds of one request, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        await asyncio.gather(*(ask(limits, REQUESTS // at_once, keys) for _ in range(at_once)))
        best = min(best, (time.process_time() - began) / REQUESTS * 1e6)
    return best


async def main() -> None:
    """Measure and print."""
    with places() as urls:
        for place, url in urls.items():
            limits = open_limits(url)
            for at_once in (1, 16):
                for keys in (1, 1000):
                    found = await cpu_us(limits, at_once, keys)
                    print(f"{place:8} {at_once:3} at once  {keys:5} keys  {found:6.0f} us")
            await limits.close()


if __name__ == "__main__":
    asyncio.run(main())
