"""Server-sent events, and the comments that keep a silent stream open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from router.asgi.errors import encode

Json = dict[str, Any]

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

LINE_ENDS = ("\x85", "\u2028", "\u2029")
"""Those that JSON does not escape by itself. Python's ``splitlines`` ends lines there, and httpx's ``iter_lines``."""
_ESCAPES = tuple((end.encode(), f"\\u{ord(end):04x}".encode()) for end in LINE_ENDS)

SHORTEST_SLEEP_S = 0.001
"""A shorter one could end before its time, by the rounding of numbers."""

Write = Callable[[bytes], Awaitable[None]]


def event(body: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + _line(body) + b"\n\n"


def named_event(body: Json) -> bytes:
    """One server-sent event that is named after its ``type``."""
    kind: str = body["type"]
    return b"event: " + kind.encode() + b"\n" + event(body)


def _line(body: Json) -> bytes:
    """The JSON on one line, also for clients that end lines at every character that Unicode lets end one."""
    line = encode(body)
    if line.isascii():
        return line
    for end, escape in _ESCAPES:  # they can stand only within strings
        line = line.replace(end, escape)
    return line


@asynccontextmanager
async def kept_alive(write: Write, every_s: float) -> AsyncIterator[Write]:
    """``write``, beside which a comment is written after every ``every_s`` seconds without anything.

    One task for a stream looks at the time now and then: to wait for each event with a time limit would take a task,
    and more time than the event itself.
    """
    writing = _Writing(write)
    beating = asyncio.create_task(writing.beat(every_s))
    try:
        yield writing
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


class _Writing:
    """Writes one thing at a time, and knows when it did so last."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._now = asyncio.get_running_loop().time
        self._last = self._now()
        self._turn = asyncio.Lock()

    async def __call__(self, event: bytes) -> None:
        async with self._turn:
            await self._write(event)
            self._last = self._now()

    async def beat(self, every_s: float) -> None:
        while True:
            if (left := self._last + every_s - self._now()) > 0:
                await asyncio.sleep(max(left, SHORTEST_SLEEP_S))
            else:
                await self(KEEP_ALIVE)
