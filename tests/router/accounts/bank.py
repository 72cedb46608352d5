"""A router with accounts in a database, and models that play their answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from starlette.types import ASGIApp

from accounts import schema
from accounts.checking import differences
from accounts.environment import DATABASE_URL
from accounts.types import KeySpec
from router.accounts.service import AccountsService
from router.app import create_app
from router.backends.base import Backend
from router.config import RouterConfig
from tests.router.accounts.world import bearer, eventually
from tests.router.composition.world import Models

Json = dict[str, Any]

ACTOR = "command:test"
PRICES: Json = {
    "blip-large": {"image": "0.6", "tasks": {"caption": {"each": "0.1", "output": "0.01"}}},
    "florence-2-base": "0.1",
    "kosmos-2": "0.6",
}
CAPTION = 600_000 + 100_000 + 3 * 10_000
"""Of the answer that models play by default, by blip-large: an image, a task, and three tokens."""


@dataclass
class Bank:
    """A router with accounts.

    Attributes:
        service: The accounts.
        app: The router as an application.
        http: A client without a key.
        account: The id of the one account.
    """

    service: AccountsService
    app: ASGIApp
    http: httpx.AsyncClient
    account: str

    def key(self, **spec: Any) -> str:
        """The secret of a new key."""
        return self.service.accounts.directory.create_key(self.account, KeySpec("test", **spec), ACTOR).secret

    async def ask(self, secret: str, request: Json, path: str = "/v1/chat/completions") -> httpx.Response:
        """Ask with a key."""
        return await self.http.post(path, json=request, headers=bearer(secret))

    async def charges(self) -> list[Json]:
        """All charges, the oldest first, once everything is in the database; which then adds up."""

        async def settled() -> bool:
            return not self.service.unsettled and not self._rows(schema.holds)

        await eventually(settled)
        assert not differences(self.service.database)
        return [row for row in self._rows(schema.entries) if row["kind"] == "charge"]

    def sums(self) -> tuple[int, int]:
        """What the account has settled and held."""
        [row] = [row for row in self._rows(schema.balances) if row["account_id"] == self.account]
        return row["settled"], row["held"]

    def usage(self) -> list[Json]:
        """The rows of usage."""
        return self._rows(schema.usage_days)

    def _rows(self, table: Any) -> list[Json]:
        with self.service.database.read() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]


@asynccontextmanager
async def bank(
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    folder: Path,
    backend: Backend | None = None,
    *,
    prepaid: bool = False,
    **settings: Any,
) -> AsyncIterator[Bank]:
    """A router at work. Several may have the same database; each finds or makes the one account."""
    monkeypatch.setenv(DATABASE_URL, database_url)
    config = RouterConfig(
        database_url="environment",
        outbox_folder=str(folder),
        **{"prices": PRICES, "allowed_hosts": ("router",), **settings},
    )
    service = AccountsService(config)
    directory = service.accounts.directory
    owners = {one.name: one for one in directory.organisations()}
    owner = owners.get("shop") or directory.create_organisation("shop", ACTOR)
    found = directory.accounts(owner.id)
    account = found[0] if found else directory.create_account(owner.id, "cameras", ACTOR, prepaid=prepaid)
    app = create_app(backend or Models(), config, accounts=service)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://router") as http,
    ):
        yield Bank(service, app, http, account.id)
