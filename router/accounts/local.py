"""The routes about accounts over a database in this process, for commands: who can reach the database needs no key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from accounts.books import Books
from accounts.database import open_database
from accounts.directory import open_directory
from accounts.keys import NewKey, new_secret
from accounts.migrate import require_current
from accounts.types import Key, KeySpec
from router.accounts.account_routes import AccountRoutes
from router.accounts.authentication import KEY_KEY
from router.accounts.handlers import Accounts
from router.accounts.views import new_key_json
from router.asgi.errors import on_http_error, on_vlm_error
from router.asgi.middleware import RequestMiddleware
from router.config import RouterConfig
from vlm.errors import VlmError

Json = dict[str, Any]


class AsAdmin:
    """ASGI middleware by which every request comes from whoever runs the command."""

    def __init__(self, app: ASGIApp, actor: str) -> None:
        self._app = app
        self._key = Key(
            id=actor,
            account="",
            spec=KeySpec(actor, frozenset({"admin"})),
            hint="",
            prepaid=False,
            created_at=0,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[KEY_KEY] = self._key
        await self._app(scope, receive, send)


def new_admin_key(url: str) -> Json:
    """A further key that manages all accounts, with its secret. It belongs to the account that the router's own would.

    Raises:
        AccountsError: The URL is none, the database has another version, or that account was closed.
        AccountsUnavailable: It does not answer.
    """
    database = open_database(url, is_there=True)
    try:
        require_current(database)
        secret = new_secret()
        return new_key_json(NewKey(open_directory(database).bootstrap(secret), secret))
    finally:
        database.close()


@contextmanager
def opened_app(url: str, actor: str) -> Iterator[Starlette]:
    """An application with the routes about accounts.

    Args:
        url: Of the database, as :func:`~accounts.database.open_database` takes it.
        actor: Who is written into the audit log.

    Raises:
        AccountsError: The URL is none, or the database has another version.
        AccountsUnavailable: It does not answer.
    """
    database = open_database(url, is_there=True)
    try:
        require_current(database)
        accounts = Accounts(open_directory(database), Books(database))
        yield Starlette(
            routes=[*AccountRoutes(accounts, RouterConfig()).routes()],
            middleware=[Middleware(RequestMiddleware), Middleware(AsAdmin, actor=actor)],
            exception_handlers={VlmError: on_vlm_error, HTTPException: on_http_error},
        )
    finally:
        database.close()
