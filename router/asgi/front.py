"""What stands in front of everything: it decides whether a request is let in, and reads its body first.

It runs in the process that clients connect to, before Ray Serve reads anything of the request (:mod:`router.ingress`),
and once more in the router's own application, for a server where it does not. Each process has limits of its own.
Behind HAProxy both are in one process: a request then passes the second at once, if it has the settings of the first.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import suppress

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from router.asgi.credentials import is_open, secret_of
from router.asgi.errors import NO_WEBSOCKETS, BodyTooSlow, error_response
from router.asgi.foreign import ANY, refuse_foreign
from router.asgi.intake import Arrived, Incoming, read_intake
from router.asgi.middleware import Exchange, new_id
from router.asgi.outgoing import READING_GRACE_S, Outgoing
from router.asgi.request_headers import clean
from router.asgi.room import SHARE_KEY, BodyBytes, RequestCount
from router.asgi.serve_answers import Answer
from router.config import RouterConfig
from vlm.errors import Overloaded, VlmError

SERVE_PATHS = frozenset(("/-/healthz", "/-/routes"))
"""Serve's own, for load balancers and operators; it answers them itself."""
STATE_PATHS = frozenset(("/health", "/healthz", "/readyz", "/v1/status", "/metrics"))
"""Passed on at once like Serve's own, without a body and whatever else waits, so that a full server can be seen."""

LINGER_S = 5.0
"""How long a client that is refused may go on sending, so that it comes to reading the answer: if its connection were
closed at once, many a client would report the broken connection instead."""
LINGERING = 64
"""Number of such clients at a time; the connections of more are closed at once."""

EXPOSED_HEADERS = (
    "x-request-id",
    "x-gigarouter-model",
    "openai-processing-ms",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "idempotent-replayed",
    "idempotent-stored",
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
)
"""Headers of answers that pages of other sites may read."""

POLICY_VIOLATION = 1008

PASSED_KEY = "gigarouter.front"
"""Where a front leaves its mark in the scope of a request."""
_PROCESS = new_id()
"""Makes the marks of this process differ from all others', since a scope may be sent on to another process."""


class Front:
    """ASGI middleware around a whole server."""

    def __init__(
        self, app: ASGIApp, config: RouterConfig, session_header: str = "", *, behind_haproxy: bool = False
    ) -> None:
        """Around ``app``, within the limits of ``config``.

        Args:
            session_header: A further name under which Serve looks for a session; see :func:`clean`.
            behind_haproxy: Whether Serve's HAProxy connects to this server. It does so at the loopback address where it
                is on the same node, whatever address its clients have used, so that any ``Host`` is accepted.
        """
        self._app = app
        self._config = config
        self._hosts = (ANY,) if behind_haproxy else config.allowed_hosts
        self._session_header = session_header
        self._bodies = BodyBytes(config.max_total_body_bytes)
        self._arriving = RequestCount(config.max_open_bodies)
        self._serving = RequestCount(config.max_requests)
        self._lingering = RequestCount(LINGERING)
        self._mark = _PROCESS + hashlib.sha256(config.model_dump_json().encode()).hexdigest()
        self._let_in = _with_cors(self._check_and_run, config.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await _refuse_websocket(scope, send)
        elif scope["type"] != "http" or scope.get(PASSED_KEY) == self._mark:
            await self._app(scope, receive, send)
        else:
            scope[PASSED_KEY] = self._mark
            scope["headers"] = clean(scope["headers"], self._session_header)
            await self._let_in(scope, receive, send)

    async def _check_and_run(self, scope: Scope, receive: Receive, send: Send) -> None:
        outgoing = Outgoing(scope, send, self._config.request_timeout_s + READING_GRACE_S)
        with suppress(ClientDisconnect):
            async with outgoing.limited():
                await self._check_and_answer(scope, Incoming(scope, receive), outgoing)

    async def _check_and_answer(self, scope: Scope, incoming: Incoming, send: Send) -> None:
        exchange = Exchange(scope, send)
        answer = Answer(exchange, incoming, send)
        try:
            refuse_foreign(scope, self._hosts, self._config.allowed_origins)
            self._refuse_without_key(scope)
            if scope["path"] in SERVE_PATHS:
                await self._app(scope, Arrived(b"", incoming), send)
            elif scope["path"] in STATE_PATHS:
                await self._run(scope, Arrived(b"", incoming), answer, exchange)
            else:
                await self._read_and_run(scope, incoming, answer, exchange)
        except VlmError as error:
            # Without the traceback, whose frames hold the part of the body that had arrived.
            await self._refuse(error.with_traceback(None), exchange, incoming)

    def _refuse_without_key(self, scope: Scope) -> None:
        """Where keys are asked for, no body is read of what brings none; whether it is a good one is not known here."""
        if self._config.database_url is not None and not is_open(scope) and scope["path"] not in SERVE_PATHS:
            secret_of(scope)

    async def _read_and_run(self, scope: Scope, incoming: Incoming, answer: Answer, exchange: Exchange) -> None:
        self._serving.check()  # first, since a body that cannot be served need not be read
        with self._bodies.share() as share:
            with self._arriving.counted():
                scope[SHARE_KEY] = answer.share = share
                arrived = Arrived(await read_intake(scope, incoming, share, self._config), incoming)
            with self._serving.counted():
                await self._run(scope, arrived, answer, exchange)

    async def _run(self, scope: Scope, receive: Receive, answer: Answer, exchange: Exchange) -> None:
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  # the last resort for Serve's proxy, which has none
            exchange.report(error)
        await answer.finish()

    async def _refuse(self, error: VlmError, exchange: Exchange, incoming: Incoming) -> None:
        async def linger() -> None:
            if not isinstance(error, BodyTooSlow):
                await self._linger(incoming)

        try:
            await exchange.answer(error, linger if incoming.unread else None)
        finally:
            exchange.log()

    async def _linger(self, incoming: Incoming) -> None:
        with suppress(Overloaded, TimeoutError), self._lingering.counted():
            async with asyncio.timeout(LINGER_S):
                await incoming.drain()


def _with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """``app`` with answers that browsers let pages of ``origins`` read, its errors included."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=EXPOSED_HEADERS,
    )


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    """The first message of a web socket asks whether it is accepted."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return
    response = error_response(NO_WEBSOCKETS)
    headers = [*response.raw_headers, (b"x-request-id", new_id().encode())]
    await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.body})
