"""Long answers, and clients that do not read them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.asgi.front import Front
from router.asgi.middleware import RequestMiddleware
from router.asgi.outgoing import PART_BYTES, READING_GRACE_S
from router.asgi.room import UNCOUNTED_BYTES
from router.config import RouterConfig
from tests.clock import CLOCKED
from tests.router.connection import Connection, scope_of

pytestmark = pytest.mark.anyio

GOOD = {"host": "127.0.0.1:8000"}
LARGE = UNCOUNTED_BYTES + 1000


@pytest.fixture
def anyio_backend() -> Any:
    return CLOCKED


def answering(body: bytes, *, declared: bool = True) -> ASGIApp:
    """An application that answers with ``body``, in one message."""
    length = [(b"content-length", str(len(body)).encode())] if declared else []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})

    return app


class Reader(Connection):
    """A client that reads as many messages as it is let, and then waits."""

    def __init__(self, messages: int = 0) -> None:
        super().__init__(scope_of(method="GET", **GOOD), [b""])
        self._left = messages
        self.reads = asyncio.Event()

    async def send(self, message: Message) -> None:
        if self._left == 0:
            await self.reads.wait()
        else:
            self._left -= 1
        await super().send(message)


def reading(reader: Reader, front: ASGIApp) -> asyncio.Task[Connection]:
    return asyncio.create_task(reader.through(front))


def whole() -> Reader:
    return Reader(messages=-1)


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 3 * PART_BYTES + 1])
async def test_a_long_answer_goes_out_in_small_parts(size: int) -> None:
    body = bytes(at % 251 for at in range(size))
    reader = await whole().through(Front(answering(body), RouterConfig()))
    assert reader.body == body
    parts = reader.sent[1:]
    assert all(len(one["body"]) <= PART_BYTES for one in parts)
    assert len(parts) == max(1, -(-size // PART_BYTES))
    assert [one.get("more_body", False) for one in parts] == [True] * (len(parts) - 1) + [False]


async def test_answers_that_nobody_reads_do_not_fill_the_memory() -> None:
    """They count like bodies, also where another process made them; one for which there is no room is an error."""
    front = Front(answering(bytes(LARGE)), RouterConfig(max_total_body_bytes=2 * 1000 + 999))
    waiting = [Reader(), Reader()]
    tasks = [reading(one, front) for one in waiting]
    await asyncio.sleep(0.001)
    refused = await whole().through(front)
    assert (refused.status, refused.code) == (503, "overloaded")
    small = Front(answering(b"yes"), RouterConfig(max_total_body_bytes=1))
    assert (await whole().through(small)).status == 200
    for one in waiting:
        one.reads.set()
    await asyncio.gather(*tasks)
    assert [len(one.body) for one in waiting] == [LARGE, LARGE]
    assert len((await whole().through(front)).body) == LARGE


async def test_what_is_counted_already_is_not_counted_twice() -> None:
    async def holding(scope: Scope, receive: Receive, send: Send) -> None:
        scope["gigarouter.share"].hold(LARGE)
        await answering(bytes(LARGE))(scope, receive, send)

    front = Front(holding, RouterConfig(max_total_body_bytes=LARGE))
    assert (await whole().through(front)).status == 200
    assert (await whole().through(front)).status == 200


@pytest.mark.parametrize("messages", [0, 1, 2])
async def test_a_client_that_does_not_read_is_cut_off(messages: int, caplog: pytest.LogCaptureFixture) -> None:
    config = RouterConfig(request_timeout_s=30.0, max_total_body_bytes=LARGE)
    front = Front(RequestMiddleware(answering(bytes(LARGE))), config)
    began = asyncio.get_running_loop().time()
    with caplog.at_level(logging.WARNING, logger="router"):
        reader = Reader(messages)
        await reader.through(front)
    assert asyncio.get_running_loop().time() - began == pytest.approx(30 + READING_GRACE_S)
    assert len(reader.sent) == messages  # without an end, at which the server closes the connection
    assert [record.getMessage() for record in caplog.records] == [
        "cut off, because the client does not read its answer"
    ]
    assert (await whole().through(front)).status == 200  # its bytes are free again
