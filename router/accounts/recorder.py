"""An answer as it goes out, which is kept until it is whole, and stored before its last bytes are sent.

It knows no format of answers. That one is whole, it knows from its bill: what is owed is written down before the last
bytes of an answer, and only of one that has succeeded. So a stream that ends with an error is never stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope, Send

from accounts.answers import StoredAnswer
from accounts.types import Settlement
from router.asgi.billing import owed_of
from router.asgi.middleware import EVENT_STREAM

NOT_STORED = (b"idempotent-stored", b"false")
_GONE = (OSError, ClientDisconnect)


class Recorder:
    """The ``send`` of one request.

    Attributes:
        is_stored: Whether its answer was.
    """

    def __init__(
        self, scope: Scope, send: Send, store: Callable[[StoredAnswer], Awaitable[bool]], most_bytes: int
    ) -> None:
        """Pass on to ``send``, and ``store`` an answer that has no more than ``most_bytes``."""
        self._scope = scope
        self._send = send
        self._store = store
        self._most_bytes = most_bytes
        self._start: Message | None = None  # None where the answer is not to be stored
        self._streams = False
        self._parts: list[bytes] = []
        self._left_bytes = most_bytes
        self._client_has_left = False
        self.is_stored = False

    async def send(self, message: Message) -> None:
        """Take a message of the answer. It does not matter whether the client is still there."""
        if message["type"] == "http.response.start":
            message = self._begin(message)
        elif message["type"] == "http.response.body" and self._start is not None:
            await self._keep(self._start, message)
        if not self._client_has_left:
            self._client_has_left = True  # unless the message goes out
            with suppress(*_GONE):
                await self._send(message)
                self._client_has_left = False

    def _begin(self, message: Message) -> Message:
        headers = Headers(raw=message["headers"])
        self._streams = headers.get("content-type", "").startswith(EVENT_STREAM)
        if not 200 <= message["status"] < 300:
            return message
        if int(headers.get("content-length", 0)) > self._most_bytes:
            return {**message, "headers": [*message["headers"], NOT_STORED]}
        self._start = message
        return message

    async def _keep(self, start: Message, message: Message) -> None:
        body = message.get("body", b"")
        self._left_bytes -= len(body)
        if self._left_bytes < 0:
            self._start = None
            self._parts.clear()
            return
        self._parts.append(body)
        owed = owed_of(self._scope)
        # Of a stream, the part after which nothing is to come is the first one after the bill was written. Where no
        # model has done anything, as of a dry run, asking again does nothing twice: and no limit counts such answers.
        if owed and (self._streams or not message.get("more_body", False)):
            self._start = None
            self.is_stored = await self._store(_answer(start, b"".join(self._parts), owed))
            self._parts.clear()


def _answer(start: Message, body: bytes, owed: Sequence[Settlement]) -> StoredAnswer:
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"])
    return StoredAnswer(start["status"], headers, body, tuple(owed))
