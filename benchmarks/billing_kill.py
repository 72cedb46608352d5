"""Routers that are killed at random moments while requests pay: what was answered, and what was billed.

    .venv/bin/python -m benchmarks.billing_kill                      PostgreSQL, 50 kills, two restarts of the server
    .venv/bin/python -m benchmarks.billing_kill --sqlite --kills 10
    .venv/bin/python -m benchmarks.billing_kill --again              requests with idempotency keys

A router over models that play their answers is killed and started again, and the database as well, while clients ask
for whole answers and for streams, each under an id of its own. In the end every answer that a client has read to its
end must be in the ledger once, and nothing else; no hold may outlive its expiry; and all sums must be right. The exit
code is 1 where that is not so. With ``--again``, each request has an idempotency key, and is sent until it is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from sqlalchemy import func, select

from accounts import environment, schema
from accounts.checking import differences
from accounts.database import Database, open_database
from accounts.directory import open_directory
from accounts.errors import AccountsUnavailable
from accounts.migrate import upgrade
from accounts.types import KeySpec
from router.accounts.service import AccountsService
from router.app import create_app
from router.config import RouterConfig
from tests.accounts.servers import PostgreSQL, running_postgresql
from tests.listening import kept_port
from tests.router.composition.world import Models, asking
from tests.router.world import CHAT

HOST = "127.0.0.1"
ACTOR = "command:benchmark"
MODEL = "blip-large"
TIMEOUT_S = 5.0
"""Of a request, so that the holds of a router that was killed expire while the program waits."""
PAUSE_S = 0.004
"""Between two parts of an answer."""
GONE_S = 120.0
"""Within which all holds must be gone."""
LATE_MS = 3000
"""How much later than its expiry a hold may be found: they are looked for every second."""


@dataclass
class Seen:
    """What clients have seen.

    Attributes:
        answered: The ids of the requests whose answer was read to its end.
        ends: How many ended in which way.
    """

    answered: set[str] = field(default_factory=set)
    ends: Counter[str] = field(default_factory=Counter)


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, count, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.billing_kill")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--restarts", type=int, default=2, help="of PostgreSQL")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--sqlite", action="store_true", help="SQLite in place of PostgreSQL")
    parser.add_argument("--again", action="store_true", help="send each request until it is answered")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is not None:
        return serve(options.serve)
    with tempfile.TemporaryDirectory() as folder, nullcontext() if options.sqlite else running_postgresql() as server:
        url = f"sqlite:///{folder}/accounts.db" if server is None else server.url()
        os.environ[environment.DATABASE_URL] = url
        os.environ[OUTBOX] = folder
        return asyncio.run(play(url, server, options))


async def play(url: str, server: PostgreSQL | None, options: argparse.Namespace) -> int:
    """Everything; the exit code."""
    database = open_database(url)
    upgrade(database)
    secret = _key(database)
    seen, over = Seen(), asyncio.Event()
    with Router() as router:
        await router.ready()
        ask = _ask_again_until if options.again else _ask_until
        clients = [asyncio.create_task(ask(over, router, secret, seen, number)) for number in range(options.clients)]
        late = await _disturb(router, server, database, options)
        over.set()
        await asyncio.gather(*clients)
        await _until_nothing_is_held(database)
    wrong = [*late, *_wrong(database, seen)]
    print(f"{options.kills} kills: {dict(seen.ends)}; {len(seen.answered)} answered, {_charged(database)} charged")
    print("\n".join(wrong) or "every answer is billed once, and nothing else; all sums are right")
    return 1 if wrong else 0


# The router


OUTBOX = "BILLING_KILL_OUTBOX"


def serve(port: int) -> int:
    """The process that is killed."""
    config = RouterConfig(
        database_url="environment",
        outbox_folder=os.environ[OUTBOX],
        prices={MODEL: "0.6"},
        request_timeout_s=TIMEOUT_S,
        accounts_patience_s=2.0,
    )
    app = create_app(Models(pauses_s={MODEL: PAUSE_S}), config, accounts=AccountsService(config))
    uvicorn.run(app, host=HOST, port=port, log_level="critical", lifespan="on")
    return 0


class Router:
    """A process of the router, and those that take its place."""

    def __init__(self) -> None:
        self.port = kept_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Router:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGTERM)

    async def ready(self) -> None:
        """Wait until it answers; start it again where it could not, as without a database."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            while True:
                with suppress(httpx.HTTPError):
                    if (await http.get("/healthz")).status_code == 200:
                        return
                if self._process is not None and self._process.poll() is not None:
                    self._start()
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """Kill it, and start another."""
        self._end(signal.SIGKILL)
        self._start()
        await self.ready()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def _start(self) -> None:
        command = [sys.executable, "-m", "benchmarks.billing_kill", "--serve", str(self.port)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603  this file

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()


# Trouble, and clients


async def _disturb(
    router: Router, server: PostgreSQL | None, database: Database, options: argparse.Namespace
) -> list[str]:
    """Kill the router again and again, restart the database in between; what was found of holds that are too old."""
    rng = random.Random(1)  # noqa: S311  not a secret
    restarts = {round((number + 1) * options.kills / (options.restarts + 1)) for number in range(options.restarts)}
    late: list[str] = []
    for number in range(options.kills):
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        if server is not None and number in restarts:
            await asyncio.to_thread(_restart, server)
        await router.kill()
        late += _too_old(database)
    return late


def _restart(server: PostgreSQL) -> None:
    server.stop()
    time.sleep(1.0)
    server.start()


async def _ask_until(over: asyncio.Event, router: Router, secret: str, seen: Seen, client: int) -> None:
    number = 0
    headers = {"authorization": f"Bearer {secret}"}
    while not over.is_set():
        async with httpx.AsyncClient(base_url=router.url, headers=headers, timeout=30, trust_env=False) as http:
            with suppress(httpx.HTTPError):
                while not over.is_set():
                    number += 1
                    end = "connection lost"
                    try:
                        end = await _ask(http, f"{client}-{number}", seen, stream=number % 2 == 0)
                    finally:
                        seen.ends[end] += 1
        await asyncio.sleep(0.05)


async def _ask_again_until(over: asyncio.Event, router: Router, secret: str, seen: Seen, client: int) -> None:
    """Each request until it is answered, the last one too."""
    number = 0
    while not over.is_set():
        number += 1
        request_id = f"{client}-{number}"
        headers = {"authorization": f"Bearer {secret}", "idempotency-key": request_id}
        while request_id not in seen.answered:
            end = "connection lost"
            async with httpx.AsyncClient(base_url=router.url, headers=headers, timeout=30, trust_env=False) as http:
                with suppress(httpx.HTTPError):
                    end = await _ask(http, request_id, seen, stream=number % 2 == 0)
            seen.ends[end] += 1
            await asyncio.sleep(0 if end == "answered" else 0.1)


async def _ask(http: httpx.AsyncClient, request_id: str, seen: Seen, *, stream: bool) -> str:
    request = asking(MODEL, task="caption", stream=stream)
    async with http.stream("POST", CHAT, json=request, headers={"x-request-id": request_id}) as answer:
        if answer.status_code != 200 or not stream:
            await answer.aread()
            return _ended(request_id, seen) if answer.status_code == 200 else str(answer.status_code)
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":  # what clients take for the end, whatever becomes of the connection
                return _ended(request_id, seen)
    return "stream with an error"


def _ended(request_id: str, seen: Seen) -> str:
    seen.answered.add(request_id)
    return "answered"


# The ledger


def _key(database: Database) -> str:
    directory = open_directory(database)
    owner = directory.create_organisation("benchmark", ACTOR)
    account = directory.create_account(owner.id, "benchmark", ACTOR, prepaid=False)
    return directory.create_key(account.id, KeySpec("benchmark", budgets={"total": 10**15}), ACTOR).secret


async def _until_nothing_is_held(database: Database) -> None:
    ends = time.monotonic() + GONE_S
    while time.monotonic() < ends and _count(database, schema.holds):  # noqa: ASYNC110  as it is simpler
        await asyncio.sleep(0.5)
    await asyncio.sleep(1.0)


def _wrong(database: Database, seen: Seen) -> Iterator[str]:
    entries = schema.entries.c
    with database.read() as connection:
        billed = Counter(connection.execute(select(entries.request_id).where(entries.kind == "charge")).scalars())
    yield from (f"answered and not billed: {one}" for one in sorted(seen.answered - billed.keys()))
    yield from (f"billed and not answered: {one}" for one in sorted(billed.keys() - seen.answered))
    yield from (f"billed {count} times: {one}" for one, count in billed.items() if count > 1)
    if left := _count(database, schema.holds):
        yield f"{left} holds are left"
    yield from differences(database)


def _too_old(database: Database) -> list[str]:
    expiry = schema.holds.c.expires_at
    try:
        with database.read() as connection:
            limit = int(time.time() * 1000) - LATE_MS
            count = connection.execute(select(func.count()).where(expiry < limit)).scalar_one()
    except AccountsUnavailable:
        return []
    return [f"{count} holds have outlived their expiry"] if count else []


def _charged(database: Database) -> int:
    return _count(database, schema.entries)


def _count(database: Database, table: Any) -> int:
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


if __name__ == "__main__":
    sys.exit(main())
