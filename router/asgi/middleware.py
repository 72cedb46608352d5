"""The outermost layer: request ids, headers of every answer, the access log, and the last resort.

Logs neither bodies nor the text of exceptions, which may contain prompts.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from logs.lines import place_of
from logs.request_id import REQUEST_ID
from logs.trace_id import TRACE_ID
from router.asgi.errors import INTERNAL, error_body, error_response
from router.asgi.sse import event
from vlm.errors import VlmError

logger = logging.getLogger(__name__)

REQUEST_ID_KEY = "gigarouter.request_id"
FAILURE_KEY = "gigarouter.failure"
"""Of a stream that has begun: what writes its last event for an error, in the format of its route."""
EVENT_STREAM = "text/event-stream"

_ids = random.Random()  # noqa: S311  # ids need not be secret, and the kernel's random bytes are slow
os.register_at_fork(after_in_child=_ids.seed)

_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestMiddleware:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, send)
        try:
            await self._app(scope, receive, exchange.send)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  # the last resort: an answer must be sent
            await exchange.fail(error)
        finally:
            exchange.log()


async def _to_nobody(_message: Message) -> None:
    """The ``send`` of an exchange whose answer is written elsewhere."""


class Exchange:
    """One request and the headers, status and log line of its answer."""

    def __init__(self, scope: Scope, send: Send = _to_nobody) -> None:
        headers = Headers(scope=scope)
        self._scope = scope
        self._send = send
        self._started_at = time.perf_counter()
        self._echo = safe_id(headers.get("x-client-request-id"))
        self._id = safe_id(headers.get("x-request-id")) or new_id()
        self._status = 0
        self._streams = False
        scope[REQUEST_ID_KEY] = self._id
        REQUEST_ID.set(self._id)

    async def send(self, message: Message) -> None:
        """Pass a message on, with our headers on its start."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(self._headers())
            self._status = message["status"]
            self._streams = headers.get("content-type", "").startswith(EVENT_STREAM)
        await self._send(message)

    def raw_headers(self, status: int) -> list[tuple[bytes, bytes]]:
        """Our headers for an answer with this status that does not pass through :meth:`send`."""
        self._status = status
        return [(name.encode(), value.encode("latin-1")) for name, value in self._headers().items()]

    async def answer(self, error: VlmError, before_end: Callable[[], Awaitable[None]] | None = None) -> None:
        """Answer with an error.

        Args:
            error: What the client gets.
            before_end: Awaited when all is written and the answer has not ended; the connection is closed after it.
        """
        response = error_response(error)
        if before_end is not None:
            response.headers["connection"] = "close"
        await self.send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self.send({"type": "http.response.body", "body": response.body, "more_body": before_end is not None})
        if before_end is not None:
            await before_end()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: Exception) -> None:
        """Answer an unexpected exception: with an error, or within a stream with one more event."""
        self.report(error)
        if not self._status:
            await self.answer(INTERNAL)
        elif self._streams:
            write: Callable[[VlmError], bytes] = self._scope.get(FAILURE_KEY, _error_event)
            body = write(INTERNAL)
            await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def report(self, error: Exception) -> None:
        """Log where an unexpected exception comes from, without its text."""
        logger.error("unexpected %s\n%s", type(error).__name__, place_of(error))

    def log(self) -> None:
        """One line in the access log."""
        method, path, ms = self._scope["method"], self._scope["path"][:256], self._elapsed_ms()
        fields = {"method": method, "path": path, "status": self._status, "duration_ms": round(ms)}
        trace = TRACE_ID.get()
        logger.info(
            "%s %r %d %.0f ms%s", method, path, self._status, ms, f" trace {trace}" if trace else "", extra=fields
        )

    def _headers(self) -> Mapping[str, str]:
        echo = {} if self._echo is None else {"x-client-request-id": self._echo}
        return {"x-request-id": self._id, "openai-processing-ms": f"{self._elapsed_ms():.0f}", **echo}

    def _elapsed_ms(self) -> float:
        return (time.perf_counter() - self._started_at) * 1000


def _error_event(error: VlmError) -> bytes:
    return event(error_body(error))


def new_id() -> str:
    """An id for a request that has none."""
    return f"req_{_ids.getrandbits(128):032x}"


def safe_id(value: str | None) -> str | None:
    """A client's id, if it is safe to repeat in headers and logs."""
    return value if value is not None and _SAFE_ID.fullmatch(value) else None
