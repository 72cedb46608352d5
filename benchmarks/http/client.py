"""An HTTP client that costs little, since it shares the cores with what it measures.

It sends what it is given and times the answer. It does not parse answers: that happens when the clock has stopped.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

CONTENT = re.compile(rb'"content":"[^"]')
"""What the first event of a stream has that carries text."""
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request, ready to be written to a socket.

    Attributes:
        parts: Its bytes.
        number: Which image it is about.
    """

    parts: tuple[bytes, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Answered:
    """How a request ended; all times are those of one clock, in seconds.

    Attributes:
        number: Which image it was about.
        asked: When it was sent, or should have been.
        first: When the first text arrived, of an answer that streams; otherwise when the answer had arrived.
        done: When the answer had arrived.
        status: Its HTTP status, or 0 if the connection broke.
        body: The whole answer, as it was sent.
        chunked: Whether it was sent in chunks.
        retry_after: Whether it says when to try again.
    """

    number: int
    asked: float
    first: float
    done: float
    status: int
    body: bytes
    chunked: bool = False
    retry_after: bool = False

    @property
    def content(self) -> bytes:
        """The answer itself."""
        return b"".join(_chunks(self.body)) if self.chunked else self.body


def _chunks(body: bytes) -> Iterator[bytes]:
    at = 0
    while (length := int(body[at : (line_end := body.index(b"\r\n", at))], 16)) > 0:
        yield body[line_end + 2 : line_end + 2 + length]
        at = line_end + 2 + length + 2


class Connection(asyncio.Protocol):
    """One connection, which answers one request after the other."""

    def __init__(self, *, streaming: bool) -> None:
        self.open = False
        self.lost = asyncio.Event()
        self._streaming = streaming
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[None] | None = None
        self._begin()

    def _begin(self) -> None:
        self._received = bytearray()
        self._body_at = 0
        self._length: int | None = None
        self._status = 0
        self._retry_after = False
        self._first = 0.0

    async def ask(self, sent: Sent, asked: float | None = None) -> Answered:
        """Send a request and wait for its answer.

        Args:
            asked: From when on it is timed; by default from now on.
        """
        began = time.perf_counter() if asked is None else asked
        if self._transport is None or not self.open:
            return Answered(sent.number, began, time.perf_counter(), time.perf_counter(), 0, b"")
        self._begin()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines(sent.parts)
        await self._answer
        done = time.perf_counter()
        body = bytes(self._received[self._body_at :])
        return Answered(
            sent.number, began, self._first or done, done, self._status, body, self._length is None, self._retry_after
        )

    def close(self) -> None:
        """Nothing more is asked."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport, self.open = transport, True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.open = False
        self.lost.set()
        if self._answer is not None and not self._answer.done():
            self._status = 0
            self._answer.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._body_at and not self._read_head():
            return
        if self._streaming and not self._first and CONTENT.search(self._received, self._body_at):
            self._first = time.perf_counter()
        if self._is_complete() and self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._received[:end]).lower()
        self._body_at = end + 4
        self._status = int(head[9:12])
        self._retry_after = b"\r\nretry-after:" in head
        length = re.search(rb"\r\ncontent-length: *(\d+)", head)
        self._length = None if length is None else int(length[1])
        return True

    def _is_complete(self) -> bool:
        if self._length is None:  # in chunks, of which the last one is empty
            return self._received.endswith(LAST_CHUNK)
        return len(self._received) - self._body_at >= self._length


class Connections:
    """Connections to one server, each used by one request at a time; opened as they are needed."""

    def __init__(self, port: int, *, streaming: bool = False) -> None:
        self._port = port
        self._streaming = streaming
        self._idle: list[Connection] = []
        self._all: list[Connection] = []

    async def __aenter__(self) -> Connections:
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self._all:
            one.close()
        for one in self._all:
            await one.lost.wait()

    async def ask(self, requests: Iterator[Sent], asked: float | None = None) -> Answered:
        """Take the next request and send it over a connection that is idle, or a new one."""
        connection = await self._take()
        try:
            return await connection.ask(next(requests), asked)
        finally:
            self._idle.append(connection)

    async def _take(self) -> Connection:
        while self._idle:
            if (found := self._idle.pop()).open:
                return found
        loop = asyncio.get_running_loop()
        opened = Connection(streaming=self._streaming)
        with suppress(OSError):  # then it is not open, and says so
            await loop.create_connection(lambda: opened, "127.0.0.1", self._port)
            self._all.append(opened)
        return opened
