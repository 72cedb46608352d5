"""Server-sent events as bytes, and what keeps a silent stream open."""

from __future__ import annotations

import asyncio
import json

import pytest

from router.asgi.sse import KEEP_ALIVE, event, kept_alive
from tests.clock import CLOCKED
from vlm.errors import Overloaded

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


def test_an_event_is_one_line_however_a_client_ends_lines() -> None:
    body = {"text": "".join(map(chr, range(0x2100)))}
    sent = event(body)
    assert sent.endswith(b"\n\n")
    [line] = sent.decode().rstrip("\n").splitlines()
    assert json.loads(line.removeprefix("data: ")) == body


class Written:
    """What has been written, each with the time at which that began; to write takes ``takes_s``."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.sent: list[tuple[float, bytes]] = []
        self._takes_s = takes_s
        self._began = seconds()
        self._busy = False

    async def __call__(self, event: bytes) -> None:
        assert not self._busy, "two at a time"
        self.sent.append((seconds() - self._began, event))
        self._busy = True
        await asyncio.sleep(self._takes_s)
        self._busy = False


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def test_comments_are_sent_while_nothing_else_is() -> None:
    written = Written()
    async with kept_alive(written, 20.0) as write:
        for pause in (0.0, 70.0, 10.0):
            await asyncio.sleep(pause)
            await write(b"tick")
    assert [what for _, what in written.sent] == [b"tick", *[KEEP_ALIVE] * 3, b"tick", b"tick"]
    assert [round(when) for when, _ in written.sent] == [0, 20, 40, 60, 70, 80]
    assert KEEP_ALIVE.startswith(b":")
    await asyncio.sleep(100.0)
    assert len(written.sent) == 6, "nothing follows the end"


async def test_the_silence_begins_when_an_event_has_been_written() -> None:
    written = Written(takes_s=15.0)
    async with kept_alive(written, 20.0) as write:
        await write(b"tick")
        await asyncio.sleep(19.0)
        await write(b"tick")
    assert written.sent == [(0.0, b"tick"), (34.0, b"tick")]


async def test_an_event_waits_until_a_comment_is_written() -> None:
    written = Written(takes_s=5.0)
    async with kept_alive(written, 20.0) as write:
        await asyncio.sleep(21.0)
        await write(b"tick")
    assert written.sent == [(20.0, KEEP_ALIVE), (25.0, b"tick")]


async def test_errors_of_the_stream_end_the_comments() -> None:
    written = Written()
    with pytest.raises(Overloaded):
        async with kept_alive(written, 1.0):
            raise Overloaded("Full.")
    await asyncio.sleep(5.0)
    assert written.sent == []
