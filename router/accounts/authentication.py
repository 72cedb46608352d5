"""ASGI middleware that asks every request for its key, and tells what is behind it what the key allows.

Stands behind the request's id and before all routes. A good key costs a keyed hash and a look into a table in memory;
so does a wrong one, whatever it has in common with a right one: what is compared are hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from accounts.errors import WRONG_KEY, LimitReached, NotAllowed, WrongKey
from accounts.types import Key
from accounts.types import Scope as KeyScope
from router.accounts.keyring import Keyring
from router.asgi.billing import ACCESS_KEY, Access
from router.asgi.credentials import is_open, route_path, secret_of
from router.asgi.errors import error_response
from vlm.errors import VlmError

KEY_KEY = "gigarouter.key"
"""Where the key itself is left, for routes about accounts."""

ADMIN_PATHS = "/v1/admin"
MONITOR_PATHS = frozenset(("/v1/status", "/metrics"))
OWN_KEY_PATH = "/v1/key"
"""What a key may ask whatever it is for: what it is for."""


class FailedKeys(Protocol):
    """Counts wrong keys by the address that they come from."""

    def may_try(self, address: str) -> None:
        """Raises LimitReached where too many have come already."""
        ...

    async def failed(self, address: str) -> None:
        """One more; raises LimitReached where it is too many, AccountsUnavailable where that cannot be told."""
        ...


class Authentication:
    """Around an application.

    Args:
        app: What is behind.
        keyring: Finds keys.
        failed_keys: Limits wrong ones.
        access_of_key: What a key allows, in the form in which endpoints ask for it.
    """

    def __init__(
        self, app: ASGIApp, keyring: Keyring, failed_keys: FailedKeys, access_of_key: Callable[[Key], Access]
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._failed_keys = failed_keys
        self._access_of_key = access_of_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope):
            await self._app(scope, receive, send)
            return
        try:
            key = await self._key_of(scope)
            check_scope(key, route_path(scope))
            check_origin(key, Headers(scope=scope))
        except VlmError as error:
            await error_response(error.with_traceback(None))(scope, receive, send)
            return
        access = self._access_of_key(key)
        scope[KEY_KEY], scope[ACCESS_KEY] = key, access
        await self._app(scope, receive, _with_headers(send, access))

    async def _key_of(self, scope: Scope) -> Key:
        """A key that was good before is found whatever its address has sent: behind a proxy, all have the same."""
        digest = self._keyring.digest(secret_of(scope))
        address = (scope.get("client") or ("",))[0]
        if not self._keyring.knows(digest):
            try:
                self._failed_keys.may_try(address)
            except LimitReached:
                if (key := await self._keyring.find_suspect(digest)) is not None:
                    return key
                raise
        key = await self._keyring.find(digest)
        if key is None:
            await self._failed_keys.failed(address)
            raise WrongKey(WRONG_KEY)
        return key


def check_scope(key: Key, path: str) -> None:
    """What a route is for must be among what the key is for.

    Raises:
        NotAllowed: It is not.
    """
    needed = scopes_of(path)
    if needed and not key.spec.scopes & needed:
        raise NotAllowed(f"This API key is for {_words(key.spec.scopes)}; this URL asks for {_words(needed)}.")


def scopes_of(path: str) -> frozenset[KeyScope]:
    """What a key must be for, one of these, to ask this path; empty where it does not matter."""
    if path == ADMIN_PATHS or path.startswith(f"{ADMIN_PATHS}/"):
        return frozenset(("admin",))
    if path in MONITOR_PATHS:
        return frozenset(("monitor", "admin"))
    return frozenset() if path == OWN_KEY_PATH else frozenset(("inference",))


def check_origin(key: Key, headers: Headers) -> None:
    """A web page must be one that may use the key; a program, which names none, may always.

    Raises:
        NotAllowed: The page is another one.
    """
    origins = headers.getlist("origin")
    if key.spec.origins is not None and any(origin not in key.spec.origins for origin in origins):
        raise NotAllowed("This API key may not be used by this web page (Origin).", code="origin_not_allowed")


def _words(scopes: frozenset[KeyScope]) -> str:
    return " or ".join(sorted(scopes))


def _with_headers(send: Send, access: Access) -> Send:
    """``send``, which adds to the head of the answer what is left of the key's limits."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(access.headers())
        await send(message)

    return sending
