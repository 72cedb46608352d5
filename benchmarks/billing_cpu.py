"""CPU time and latency of the router for a request of a key that pays, and for one without accounts.

    .venv/bin/python -m benchmarks.billing_cpu

One process has several routers over a stub of a model and asks them in turns, since the speed of a machine drifts: one
without accounts, one with accounts in SQLite and, where there are the programs, one with PostgreSQL, and limits in
Redis. The keys have limits; and a budget, so that every request is decided upon, or none, so that nothing is held. CPU
time is that of the whole process, threads included, without the servers'.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from starlette.applications import Starlette

from accounts import environment
from accounts.database import open_database
from accounts.migrate import upgrade
from accounts.types import KeySpec, Limits
from benchmarks.router_cpu import WARM_UP, Stub, ask, body_of
from router.accounts.service import AccountsService
from router.app import create_app
from router.config import RouterConfig
from tests.accounts.servers import program, running_postgresql, running_redis

WITHOUT = "no accounts"
AT_ONCE = (1, 32)
ACTOR = "command:benchmark"
SPEC = KeySpec("free", limits={"*": Limits(requests=10**7, images=10**7, tokens=10**9, concurrent=10**4)})
WITH_BUDGETS = replace(SPEC, name="bounded", budgets={"day": 10**17, "total": 10**17})


@dataclass(frozen=True)
class Measured:
    """Seconds of one request: of CPU, and until its answer."""

    cpu_s: float
    latency_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a line for each router."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.billing_cpu", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--requests", type=int, default=300, help="requests of each router in a round")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--kib", type=int, default=100, help="size of the image; 0 sends a text alone")
    options = parser.parse_args(arguments)
    with databases() as urls:
        times = asyncio.run(measure(urls, options.requests, options.rounds, body_of(options.kib)))
    for at_once in AT_ONCE:
        without = times[WITHOUT, at_once]
        for name in dict.fromkeys(name for name, _ in times):
            print(line(name, at_once, times[name, at_once], without))
    return 0


def line(name: str, at_once: int, found: Sequence[Measured], without: Sequence[Measured]) -> str:
    """What is printed of one router; differences are within a round."""
    more = median(one.cpu_s - other.cpu_s for one, other in zip(found, without, strict=True))
    later = median(one.latency_s - other.latency_s for one, other in zip(found, without, strict=True))
    cpu, latency = median(one.cpu_s for one in found), median(one.latency_s for one in found)
    return (
        f"{name:36} {at_once:3} at once: CPU {cpu * 1e6:6.0f} us ({more * 1e6:+6.0f}), "
        f"answer after {latency * 1e6:7.0f} us ({later * 1e6:+7.0f})"
    )


@contextmanager
def databases() -> Iterator[Mapping[str, tuple[str, str | None]]]:
    """The URLs of a database and of Redis, by what is printed."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        found: dict[str, tuple[str, str | None]] = {"SQLite": (f"sqlite:///{folder}/accounts.db", None)}
        if program("initdb") and program("redis-server"):
            postgresql, redis = stack.enter_context(running_postgresql()), stack.enter_context(running_redis())
            found["PostgreSQL and Redis"] = (postgresql.url(), redis.url)
        yield found


async def measure(
    urls: Mapping[str, tuple[str, str | None]], requests: int, rounds: int, body: bytes
) -> dict[tuple[str, int], list[Measured]]:
    """Of each router, and each number of requests at once, one for each round."""
    async with AsyncExitStack() as stack:
        routers: dict[str, tuple[Starlette, str]] = {WITHOUT: (create_app(Stub(), RouterConfig()), "none")}
        for name, (database_url, redis_url) in urls.items():
            app, bounded, free = await stack.enter_async_context(paying(database_url, redis_url))
            routers |= {name: (app, bounded), f"{name}, nothing held": (app, free)}
        for app, key in routers.values():
            await several(app, body, key, WARM_UP, 1)
        times: dict[tuple[str, int], list[Measured]] = {}
        for _ in range(rounds):
            for at_once in AT_ONCE:
                for name, (app, key) in routers.items():
                    found = await several(app, body, key, requests, at_once)
                    times.setdefault((name, at_once), []).append(found)
        return times


async def several(app: Any, body: bytes, key: str, requests: int, at_once: int) -> Measured:
    """Send so many requests, so many at a time."""
    left = iter(range(requests))
    latencies: list[float] = []

    async def one_by_one() -> None:
        for _ in left:
            began = time.perf_counter()
            await ask(app, body, key)
            latencies.append(time.perf_counter() - began)

    began = time.process_time()
    await asyncio.gather(*(one_by_one() for _ in range(at_once)))
    return Measured((time.process_time() - began) / requests, median(latencies))


@asynccontextmanager
async def paying(database_url: str, redis_url: str | None) -> AsyncIterator[tuple[Starlette, str, str]]:
    """A router with accounts, and the secrets of a key with budgets and of one without."""
    database = open_database(database_url)
    upgrade(database)
    database.close()
    os.environ[environment.DATABASE_URL] = database_url
    if redis_url is not None:
        os.environ[environment.REDIS_URL] = redis_url
    with tempfile.TemporaryDirectory() as folder:
        config = RouterConfig(
            database_url="environment",
            redis_url=None if redis_url is None else "environment",
            outbox_folder=str(Path(folder)),
            prices={"blip-large": "0.094"},
        )
        service = AccountsService(config)
        directory = service.accounts.directory
        owner = directory.create_organisation("benchmark", ACTOR)
        account = directory.create_account(owner.id, "benchmark", ACTOR, prepaid=False)
        bounded, free = (directory.create_key(account.id, one, ACTOR).secret for one in (WITH_BUDGETS, SPEC))
        app = create_app(Stub(), config, accounts=service)
        async with app.router.lifespan_context(app):
            yield app, bounded, free


if __name__ == "__main__":
    sys.exit(main())
