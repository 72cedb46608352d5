"""A router over a real database of accounts: keys for all purposes, and clients that send them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from accounts.books import Books
from accounts.database import Database
from accounts.directory import Directory
from accounts.keys import NewKey, new_secret
from accounts.types import Account, KeySpec, Scope
from router.accounts.account_routes import AccountRoutes
from router.accounts.authentication import Authentication
from router.accounts.handlers import Accounts
from router.accounts.keyring import Keyring
from router.asgi.errors import on_http_error, on_vlm_error
from router.asgi.front import Front
from router.asgi.middleware import RequestMiddleware
from router.config import RouterConfig
from tests.router.accounts.world import AtMost, access_of_key, tell
from vlm.errors import VlmError

Json = dict[str, Any]

ON_SQLITE = pytest.mark.parametrize("dialect", ["sqlite"])
"""Of a test that asks for a database, and does not depend on its kind."""
PEPPER = b"pepper of the tests, long enough"


@dataclass
class World:
    """A database with an account, and one more whose keys must see nothing of the first.

    Attributes:
        directory: Of the database.
        account, other: The accounts.
        admin: The secret of a key that manages all of them.
    """

    database: Database
    directory: Directory
    account: Account
    other: Account
    admin: str
    holds: int = 0

    def key(self, *scopes: Scope, account: Account | None = None, **spec: Any) -> str:
        """The secret of a new key of the first account."""
        return self._new(scopes, account, spec).secret

    def key_id(self, *scopes: Scope, **spec: Any) -> str:
        """The id of such a key."""
        return self._new(scopes, None, spec).key.id

    def _new(self, scopes: Sequence[Scope], account: Account | None, spec: Json) -> NewKey:
        spec = {"name": "camera", "scopes": frozenset(scopes or ("inference",)), **spec}
        return self.directory.create_key((account or self.account).id, KeySpec(**spec), "test")

    def app(self, keyring: Keyring, **settings: Any) -> Starlette:
        config = RouterConfig.from_args({"database_url": "environment", **settings})
        accounts = Accounts(self.directory, Books(self.database), keyring.refresh)
        return Starlette(
            routes=[*AccountRoutes(accounts, config).routes(), Route("/v1/chat/completions", tell, methods=["POST"])],
            middleware=[
                Middleware(Front, config=config),
                Middleware(RequestMiddleware),
                Middleware(Authentication, keyring=keyring, failed_keys=AtMost(1000), access_of_key=access_of_key),
            ],
            exception_handlers={VlmError: on_vlm_error, HTTPException: on_http_error},
            lifespan=lambda _app: keyring.running(),
        )

    def keyring(self, **settings: Any) -> Keyring:
        return Keyring(self.directory, self.directory.digest, **{"patience_s": 5.0, "poll_s": 0.05, **settings})

    @asynccontextmanager
    async def serving(self, *secrets: str, **settings: Any) -> AsyncIterator[list[httpx.AsyncClient]]:
        """A client with each of the secrets, of one router."""
        keyring = self.keyring()
        transport = httpx.ASGITransport(self.app(keyring, **settings))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(keyring.running())
            yield [
                await stack.enter_async_context(
                    httpx.AsyncClient(
                        transport=transport,
                        base_url="http://router",
                        headers={"authorization": f"Bearer {secret}"},
                    )
                )
                for secret in secrets
            ]


def world(database: Database, directory: Directory | None = None) -> World:
    """Over an empty database."""
    directory = directory or Directory(database, PEPPER, free_credit=5_000_000_000)
    admin = new_secret()
    directory.bootstrap(admin)
    owner = directory.create_organisation("Example", "test")
    account = directory.create_account(owner.id, "cameras", "test")
    other = directory.create_account(owner.id, "drones", "test")
    return World(database, directory, account, other, admin)
