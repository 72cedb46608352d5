"""Ray Serve's own answers, which are plain text, in the error contract.

What stands between the client and the router (Serve's proxy, its queue, its timeout) answers in plain text, or not at
all where the router's process has died. The router itself never answers in plain text.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Message, Send

from router.asgi.errors import INTERNAL
from router.asgi.intake import Incoming
from router.asgi.middleware import Exchange
from router.asgi.room import TOO_MANY, Share
from vlm.errors import DeadlineExceeded, ModelNotReady, Overloaded, VlmError

STARTING = ModelNotReady("The server is starting; try again in a moment.")
FULL = Overloaded(TOO_MANY)
LATE = DeadlineExceeded("The request took longer than this server allows; try again, or ask for less at once.")
SERVE_STATUS = {404: STARTING, 408: LATE, 429: FULL, 503: FULL}
"""What Serve means: it knows no route before the router is deployed, waits no longer, or has no room."""


class Answer:
    """The ``send`` that the application gets: passes its messages on, and an error in place of Serve's text.

    Attributes:
        share: Where the bytes of a long answer count until it has been read; none of a small one do.
    """

    def __init__(self, exchange: Exchange, incoming: Incoming, send: Send) -> None:
        self._exchange = exchange
        self._incoming = incoming
        self._send = send
        self._started = False
        self._replaced = False
        self.share: Share | None = None

    async def send(self, message: Message) -> None:
        """Pass on a message of the application."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._replaced:
            await self._send(message)

    async def finish(self) -> None:
        """The application has returned: a client that is still there gets an answer.

        One that has begun cannot be completed; the server closes the connection, so that the client notices.
        """
        if not self._started and not self._incoming.left:
            await self._fail(INTERNAL)

    async def _start(self, message: Message) -> None:
        self._started = True
        headers = Headers(raw=message.get("headers", []))
        error = serve_error(message["status"], headers) or self._no_room(headers)
        await (self._send(message) if error is None else self._fail(error))

    def _no_room(self, headers: Headers) -> Overloaded | None:
        """Why an answer of this length cannot be kept until it has been read; None if it can.

        The request's body has been read by now, so that only what is longer than that counts.
        """
        try:
            if self.share is not None:
                self.share.grow(int(headers.get("content-length", 0)))
        except Overloaded as error:
            return error
        return None

    async def _fail(self, error: VlmError) -> None:
        """Answer with ``error`` at once; what Serve still sends is dropped."""
        self._started = self._replaced = True
        await self._exchange.answer(error)
        self._exchange.log()


def serve_error(status: int, headers: Headers) -> VlmError | None:
    """The error that an answer stands for, if it is one of Serve's; None if it can go out as it is."""
    if status < 400 or not headers.get("content-type", "").startswith("text/plain"):
        return None
    return SERVE_STATUS.get(status, INTERNAL)
