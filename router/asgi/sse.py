"""Server-sent events, and the comments that keep a silent stream open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from router.asgi.deadline import give_up, next_or_none
from router.asgi.errors import encode

Json = dict[str, Any]

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

LINE_ENDS = ("\x85", "\u2028", "\u2029")
"""Those that JSON does not escape by itself. Python's ``splitlines`` ends lines there, and httpx's ``iter_lines``."""


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
    for end in LINE_ENDS:  # they can stand only within strings
        line = line.replace(end.encode(), f"\\u{ord(end):04x}".encode())
    return line


async def keep_alive(events: AsyncGenerator[bytes, None], every_s: float) -> AsyncGenerator[bytes, None]:
    """``events``, and a comment after every ``every_s`` seconds without one."""
    step: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            step = step or asyncio.create_task(next_or_none(events))
            done, _ = await asyncio.wait({step}, timeout=every_s)
            if not done:
                yield KEEP_ALIVE
                continue
            if (next_event := step.result()) is None:
                return
            step = None
            yield next_event
    finally:
        await give_up(step)
        await events.aclose()
