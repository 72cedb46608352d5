"""A small world of keys: a table of them that can fail, and an application that asks for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from accounts.errors import AccountsUnavailable, LimitReached
from accounts.keys import digest, new_secret
from accounts.types import Key, KeySpec
from router.accounts.authentication import KEY_KEY, Authentication
from router.accounts.keyring import Keyring
from router.asgi.billing import FREE, Access, Bill, access_of
from router.asgi.errors import json_response, on_http_error, on_vlm_error
from router.asgi.front import Front
from router.asgi.middleware import RequestMiddleware
from router.config import RouterConfig
from vlm.errors import VlmError

Json = dict[str, Any]

PEPPER = b"p" * 32
PATHS = ("/v1/chat/completions", "/v1/models", "/v1/files", "/v1/key", "/v1/admin/keys", "/v1/status", "/metrics",
         "/health", "/healthz", "/readyz", "/openapi.json", "/v1/schemas/grounding.json")  # fmt: skip


def hashed(secret: str) -> bytes:
    return digest(secret, PEPPER)


class Table:
    """Keys by the hashes of their secrets, as a database has them.

    Attributes:
        fails: Whether it does not answer.
        silent: While it is clear, questions wait.
        found: How often each hash was asked for.
        uses: What was written down of uses.
    """

    def __init__(self) -> None:
        self.rows: dict[bytes, Key] = {}
        self.changes = 0
        self.fails = False
        self.silent = threading.Event()
        self.silent.set()
        self.found: Counter[bytes] = Counter()
        self.uses: list[tuple[frozenset[str], int]] = []

    def add(self, spec: KeySpec | None = None, **fields: Any) -> str:
        """A new key; its secret."""
        secret = new_secret()
        number = len(self.rows)
        key = Key(f"key_{number}", f"acct_{number}", spec or KeySpec("camera"), secret[:7], True, 0)
        self.put(secret, replace(key, **fields))
        return secret

    def put(self, secret: str, key: Key) -> None:
        self.rows[hashed(secret)] = key
        self.changes += 1

    def revoke(self, secret: str) -> None:
        self.put(secret, replace(self.rows[hashed(secret)], revoked_at=1))

    def find(self, digest: bytes) -> Key | None:
        self._answers()
        self.found[digest] += 1
        return self.rows.get(digest)

    def version(self) -> int:
        self._answers()
        return self.changes

    def used(self, key_ids: Collection[str], at: int) -> None:
        self._answers()
        self.uses.append((frozenset(key_ids), at))

    def _answers(self) -> None:
        self.silent.wait(10)
        if self.fails:
            raise AccountsUnavailable("Accounts do not answer.")


class AtMost:
    """So many wrong keys of an address."""

    def __init__(self, most: int = 3) -> None:
        self.most = most
        self.count: Counter[str] = Counter()

    def may_try(self, address: str) -> None:
        if self.count[address] >= self.most:
            raise LimitReached("Too many wrong keys.", retry_after_s=12.3)

    async def failed(self, address: str) -> None:
        self.count[address] += 1


@dataclass(frozen=True)
class Everything:
    """Allows its key everything."""

    key: Key

    @property
    def caller(self) -> str:
        return self.key.id

    def sees(self, model: str) -> bool:
        return True

    def bill(self, request_id: str) -> Bill:
        return FREE

    def headers(self) -> Mapping[str, str]:
        return {"x-ratelimit-limit-requests": "60"}


def access_of_key(key: Key) -> Access:
    return Everything(key)


async def tell(request: Request) -> Response:
    """Who asks, as the routes behind see it."""
    key: Key | None = request.scope.get(KEY_KEY)
    access = access_of(request.scope)
    return json_response({"key": key and key.id, "caller": access and access.caller})


@dataclass
class World:
    """A router with a table of keys."""

    table: Table = field(default_factory=Table)
    failed: AtMost = field(default_factory=AtMost)
    settings: Json = field(default_factory=dict)

    def keyring(self, **settings: Any) -> Keyring:
        return Keyring(self.table, hashed, **{"patience_s": 5.0, "poll_s": 0.01, **settings})

    def app(self, keyring: Keyring) -> Starlette:
        config = RouterConfig(database_url="sqlite:////tmp/accounts.db", **self.settings)
        return Starlette(
            routes=[Route(path, tell, methods=["GET", "POST", "DELETE"]) for path in PATHS],
            middleware=[
                Middleware(Front, config=config),
                Middleware(RequestMiddleware),
                Middleware(Authentication, keyring=keyring, failed_keys=self.failed, access_of_key=access_of_key),
            ],
            exception_handlers={VlmError: on_vlm_error, HTTPException: on_http_error},
        )

    @asynccontextmanager
    async def serving(self, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        """A client of it, without a key."""
        keyring = self.keyring(**settings)
        transport = httpx.ASGITransport(self.app(keyring))
        async with keyring.running(), httpx.AsyncClient(transport=transport, base_url="http://router") as http:
            yield http


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def eventually(holds: Callable[[], Awaitable[bool]], within_s: float = 20.0) -> None:
    """Wait until an async condition holds."""
    end = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < end, "it does not come to hold"
        await asyncio.sleep(0.01)
