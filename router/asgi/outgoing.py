"""An answer as it goes out to the client: in small parts, and only for so long.

A server keeps what it is given until the client has read it. So it gets a long answer part by part, each when the one
before has gone, and a client that does not read does not have memory for it kept for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope, Send

logger = logging.getLogger(__name__)

READING_GRACE_S = 10.0
"""How long after the deadline a client may take to read what was written in time."""
PART_BYTES = 64 * 1024
"""Bytes of an answer that the server gets at a time; as many as it buffers itself."""


class Outgoing:
    """The ``send`` of a request to whose client an answer goes.

    Args:
        scope: Of the request.
        send: The server's.
        seconds: How long the client may take to read the answer from its beginning to its end.
    """

    def __init__(self, scope: Scope, send: Send, seconds: float) -> None:
        self._scope = scope
        self._send = send
        self._seconds = seconds
        self._limit = asyncio.timeout(None)
        self._started = False

    @asynccontextmanager
    async def limited(self) -> AsyncIterator[None]:
        """Around all that makes and sends the answer: one limit for it, since one for each message would cost more than
        the messages of a stream.

        Raises:
            starlette.requests.ClientDisconnect: The client has not read the answer in time; the server closes the
                connection of one that does not get to its end.
        """
        try:
            async with self._limit:
                yield
        except TimeoutError as error:
            if not self._limit.expired():
                raise
            logger.warning("cut off, because the client does not read its answer")
            raise ClientDisconnect from error

    async def __call__(self, message: Message) -> None:
        """Pass a message on; the time of :meth:`limited` begins with the first."""
        if not self._started:
            self._started = True
            self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)
        await self._in_parts(message)

    async def _in_parts(self, message: Message) -> None:
        body = message.get("body", b"")
        if len(body) <= PART_BYTES:
            await self._send(message)
            return
        starts = range(0, len(body), PART_BYTES)
        for start in starts[:-1]:
            part = body[start : start + PART_BYTES]
            await self._send({"type": message["type"], "body": part, "more_body": True})
        await self._send({**message, "body": body[starts[-1] :]})
