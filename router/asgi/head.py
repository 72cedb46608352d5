"""The heads of requests, request line and headers, within limits that uvicorn's fast parser does not have.

Without them, a connection may send its headers for ever, and a header without an end is copied again with each part of
it that arrives: some hundred megabytes stop the process. Nothing behind the parser can prevent that, since it sees a
request only when its head is complete.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from router.asgi.errors import NO_WEBSOCKETS, HeadTooLarge, HeadTooSlow, encode, error_body, row_of
from router.asgi.middleware import new_id
from router.config import RouterConfig
from vlm.errors import InvalidRequest, VlmError

MAX_PIPELINED = 16
"""Requests that a connection may send while an earlier one is answered: without a limit, one read from the network
holds thousands of them, of some kilobytes each. Common clients send none."""

INVALID = InvalidRequest("The request is not valid HTTP.", code="invalid_http")
TOO_SLOW = HeadTooSlow("The headers of the request did not arrive in time.")


class HeadProtocol(HttpToolsProtocol):
    """One connection. Heads that are too large or too slow end it, as does the lack of one, and a web socket."""

    config_of_router = RouterConfig()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._idle_bytes = 0
        self._has_begun = False
        self._deadline: asyncio.TimerHandle | None = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_complete()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._idle_bytes += len(data)  # until a callback of the parser shows that they led to something
        super().data_received(data)
        if self._idle_bytes > self.config_of_router.max_head_bytes and not self.transport.is_closing():
            self._end(HeadTooLarge(f"The headers have more than {self.config_of_router.max_head_bytes} bytes."))
        if self._deadline is None and self._is_answered and not self.transport.is_closing():
            # What came was no head, perhaps an empty line: uvicorn has stopped waiting for one, and would never close.
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = True
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._idle_bytes = 0
        self._has_begun = False
        self._head_is_complete()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests at once")  # the way to stop the parser, which ends the connection
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """What uvicorn calls to give the connection to another protocol, which has no limits of ours."""
        self._end(NO_WEBSOCKETS)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls where the parser does not understand the bytes."""
        del msg  # in plain text
        self._end(INVALID)

    @property
    def _is_answered(self) -> bool:
        """Whether no answer is on its way."""
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._head_is_complete()
        self._deadline = self.loop.call_later(self.config_of_router.head_timeout_s, self._is_late)

    def _head_is_complete(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_late(self) -> None:
        if self._has_begun:
            self._end(TOO_SLOW)
        else:
            self.transport.close()  # there is nothing to answer

    def _end(self, error: VlmError) -> None:
        """Answer with ``error``, unless another answer is on its way, and close the connection."""
        if self._is_answered:
            self.transport.write(_response(error))
        self.transport.close()


def head_protocol(config: RouterConfig) -> type[HeadProtocol]:
    """The class of connections with the limits of ``config``; uvicorn makes them itself, without arguments of ours."""
    return type("ConfiguredHeadProtocol", (HeadProtocol,), {"config_of_router": config})


def _response(error: VlmError) -> bytes:
    body = encode(error_body(error))
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
    return STATUS_LINE[row_of(error).status] + head.encode() + f"x-request-id: {new_id()}\r\n\r\n".encode() + body
