"""Requests that schemathesis makes out of the document to the routes about accounts, over a database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from accounts.books import Books
from accounts.database import open_database
from accounts.migrate import upgrade
from accounts.types import Key
from router.accounts.account_routes import AccountRoutes
from router.accounts.authentication import KEY_KEY
from router.accounts.handlers import Accounts
from router.asgi.errors import on_http_error, on_vlm_error
from router.asgi.middleware import RequestMiddleware
from router.config import RouterConfig
from tests.router.accounts.books import World
from tests.router.accounts.books import world as a_world
from tests.router.openapi.documents import operations, served
from tests.router.openapi.test_fuzz import CASES, CHECKS, OTHER_THREADS, SEED, schemathesis
from vlm.errors import VlmError

pytestmark = OTHER_THREADS

OF_ACCOUNTS = [(path, method) for path, method, operation in operations() if operation["tags"] == ["accounts"]]
SHARE = 2
"""Of the cases of the other routes, these are a half."""


class With:
    """Lets every request come with a key, which need not be sent: each case has an event loop of its own."""

    def __init__(self, app: ASGIApp, key: Key) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[KEY_KEY] = self._key
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    database = open_database(f"sqlite:///{tmp_path_factory.mktemp('fuzz') / 'accounts.db'}")
    upgrade(database)
    yield a_world(database)
    database.close()


@pytest.fixture(scope="module")
def key(world: World) -> Key:
    """May do everything, and has an account."""
    return world.directory.key(world.key_id("inference", "admin"))


@pytest.fixture(scope="module")
def schema(world: World, key: Key) -> Any:
    accounts = Accounts(world.directory, Books(world.database))
    found = schemathesis.openapi.from_dict(served())
    found.app = Starlette(
        routes=[*AccountRoutes(accounts, RouterConfig()).routes()],
        middleware=[Middleware(RequestMiddleware), Middleware(With, key=key)],
        exception_handlers={VlmError: on_vlm_error, HTTPException: on_http_error},
    )
    return found


@pytest.mark.parametrize(("path", "method"), OF_ACCOUNTS)
def test_any_request(path: str, method: str, schema: Any, key: Key, world: World) -> None:
    of_it = world.account
    ids = {"keys": key.id, "accounts": of_it.id, "credits": of_it.id, "organisations": of_it.organisation}

    @seed(SEED)
    @settings(
        max_examples=max(5, CASES // SHARE // len(OF_ACCOUNTS)),
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(schema[path][method.upper()].as_strategy())
    def each(case: Any) -> None:
        note(case.as_curl_command())
        if "id" in case.path_parameters and method != "delete":  # of something that is there, to get further
            case.path_parameters["id"] = ids[path.split("/")[3]]
        answer = case.call()
        case.validate_response(answer, checks=list(CHECKS))

    each()
