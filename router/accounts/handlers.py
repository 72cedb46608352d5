"""What all routes about accounts share: the database, a deadline, and threads for what waits for the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from accounts.errors import AccountsUnavailable, NotAllowed, NotFound
from accounts.types import Key
from router.accounts.authentication import KEY_KEY
from router.accounts.pages import is_id
from router.accounts.threads import in_thread
from router.asgi.body import read_body, read_object
from router.asgi.deadline import until
from router.asgi.errors import AccountsOff, json_response
from router.asgi.validation import validated
from router.config import RouterConfig

if TYPE_CHECKING:
    from accounts.books import Books
    from accounts.directory import Directory

Json = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")
BodyT = TypeVar("BodyT", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]

ADMIN = "/v1/admin"
MAX_BODY_BYTES = 64 * 1024
PRIVATE = {"cache-control": "private, no-store"}
"""Of every answer about accounts: neither browsers nor proxies keep it."""


async def _nothing() -> None:
    """Where nobody remembers keys, nobody has to forget them."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts of a router.

    Attributes:
        directory: Organisations, accounts and keys.
        books: Their balances, entries and usage.
        changed: Told after each change that was made here, so that this process notices it at once.
    """

    directory: Directory
    books: Books
    changed: Callable[[], Awaitable[None]] = _nothing


class Handlers:
    """The base of what answers routes; ``accounts`` is None where this server keeps none."""

    def __init__(self, accounts: Accounts | None, config: RouterConfig) -> None:
        self._accounts = accounts
        self._config = config

    @property
    def _on(self) -> Accounts:
        if self._accounts is None:
            raise AccountsOff("This server keeps no accounts; an operator can set database_url.")
        return self._accounts

    def _admin(self, method: str, path: str, answer: Handler) -> Route:
        """A route below :data:`ADMIN`, for keys that manage accounts."""

        @wraps(answer)
        async def as_admin(request: Request) -> Response:
            admin_of(request)
            return await answer(request)

        return self._route(method, f"{ADMIN}{path}", as_admin)

    def _route(self, method: str, path: str, answer: Handler) -> Route:
        """A route that is named as the method that answers it."""

        async def within_time(request: Request) -> Response:
            _ = self._on  # before anything is read
            deadline = asyncio.get_running_loop().time() + self._config.request_timeout_s
            return await until(deadline, answer(request))

        return Route(path, within_time, methods=[method], name=getattr(answer, "__name__", ""))

    async def _changing(self, change: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a change of the directory; what is remembered of keys is then looked for again."""
        changed = await in_thread(change, *args, **kwargs)
        with suppress(AccountsUnavailable):  # the change was made, and will be noticed as elsewhere
            await self._on.changed()
        return changed


def private(body: Json) -> Response:
    """A JSON answer about accounts."""
    return json_response(body, headers=PRIVATE)


async def body_of(request: Request, kind: type[BodyT]) -> BodyT:
    """The request's body; nothing is an empty object.

    Raises:
        InvalidRequest: It is not of this kind.
    """
    body = await read_body(request.scope, request.receive, MAX_BODY_BYTES)
    return validated(kind, read_object(body or b"{}"))


def key_of(scope: Scope) -> Key:
    """The key of a request."""
    key: Key = scope[KEY_KEY]
    return key


def id_in_path(request: Request) -> str:
    """The id in the URL.

    Raises:
        NotFound: There can be nothing of this id.
    """
    found: str = request.path_params["id"]
    if not is_id(found):
        raise NotFound("There is nothing of this id.", "id")
    return found


def admin_of(request: Request) -> str:
    """The id of the key that may manage all accounts, for the audit log.

    Raises:
        NotAllowed: The key may not. No request gets here with one; this is the second door.
    """
    key = key_of(request.scope)
    if "admin" not in key.spec.scopes:
        raise NotAllowed("This API key does not manage accounts.")
    return key.id
