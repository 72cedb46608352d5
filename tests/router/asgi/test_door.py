"""Requests that are refused before anything is made of them, on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from router.admission import rule
from router.app import create_app
from router.asgi.door import DROPPED_BYTES
from router.asgi.gate import HEAD_BYTES, TAIL_BYTES, named
from router.asgi.metering import RequestRecord
from router.backends.base import LocalBackend
from router.config import RouterConfig
from router.server import HttpServer
from tests.deployments.system import free_port
from tests.router.world import CHAT, body, script, user, words
from vlm.types import Chunk, Request

pytestmark = pytest.mark.anyio

MODEL = "blip-large"
NAMED = b'{"model": "blip-large", '


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Engine:
    """One slot, which answers when it is told to."""

    slots = rows = 1

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked = 0

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        self.asked += 1
        await self.open.wait()
        for chunk in script(words()):
            yield chunk


@dataclass
class Full:
    """A server whose only model has no room; what it refuses is remembered."""

    port: int
    engine: Engine
    waiting: list[asyncio.Task[bytes]]
    records: list[RequestRecord] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes, length: int | None = None, **headers: str) -> None:
        """The head of a request, and what is there of its body."""
        all_headers = {"host": "127.0.0.1", "authorization": "Bearer none", **headers}
        more = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
        head = f"POST {CHAT} HTTP/1.1\r\n{more}content-length: {len(data) if length is None else length}\r\n\r\n"
        self.writer.write(head.encode() + data)

    async def answer(self) -> tuple[bytes, dict[str, Any]]:
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return head, json.loads(await self.reader.readexactly(length))

    async def refused(self) -> bytes:
        """The head of an answer that says that there is no room."""
        head, said = await self.answer()
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nretry-after: 2\r\n" in head
        assert b"\r\nx-request-id: " in head
        assert said["error"]["code"] == "overloaded"
        return head


def good() -> bytes:
    return json.dumps(body()).encode()


async def whole(client: Client) -> bytes:
    client.send(good())
    return (await client.answer())[0]


@asynccontextmanager
async def full(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[Full]:
    monkeypatch.setattr(rule, "REFUSES_S", 1e9)
    port, engine = free_port(), Engine()
    config = RouterConfig(listen=f"127.0.0.1:{port}", **settings)
    found = Full(port, engine, [])
    app = create_app(LocalBackend({MODEL: engine}), config, lambda _scope, record: found.records.append(record))
    server = HttpServer(app, config, app.state.gate)
    server.start()
    try:
        while True:  # until one is refused
            client = await found.connect()
            asking = asyncio.create_task(whole(client))
            found.waiting.append(asking)
            await asyncio.wait([asking], timeout=0.2)
            if asking.done():
                assert asking.result().startswith(b"HTTP/1.1 503")
                break
        found.waiting.pop()
        found.records.clear()
        yield found
    finally:
        engine.open.set()
        await asyncio.gather(*found.waiting)
        for client in found.clients:
            client.writer.close()
        await asyncio.gather(*(client.writer.wait_closed() for client in found.clients), return_exceptions=True)
        server.stop()
        async with asyncio.timeout(20):
            while server.is_serving:
                await asyncio.sleep(0.02)


async def test_the_answer_comes_before_the_body_and_the_connection_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with full(monkeypatch) as server:
        client, before = await server.connect(), server.engine.asked
        client.send(NAMED, 100_000, **{"x-request-id": "mine", "x-client-request-id": "theirs"})
        head = await client.refused()
        assert b"\r\nx-request-id: mine\r\n" in head
        assert b"\r\nx-client-request-id: theirs\r\n" in head
        client.writer.write(b" " * (100_000 - len(NAMED)))
        client.send(b'{"messages": "not read", "model": "blip-large"}')
        await client.refused()
        assert server.engine.asked == before
        assert [(one.model, one.outcome, one.error and one.error.code) for one in server.records] == [
            (MODEL, "failed", "overloaded")
        ] * 2
        server.engine.open.set()
        await asyncio.gather(*server.waiting)
        client.send(good())
        assert (await client.answer())[0].startswith(b"HTTP/1.1 200 ")


async def test_several_at_once_are_answered_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with full(monkeypatch) as server:
        client = await server.connect()
        for _ in range(5):
            client.send(NAMED + b'"messages": []}')
        for _ in range(5):
            await client.refused()


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [("host", "evil.example", "host_not_allowed"), ("origin", "https://evil.example", "origin_not_allowed")],
)
async def test_what_the_front_refuses_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, header: str, value: str, code: str
) -> None:
    async with full(monkeypatch) as server:
        client = await server.connect()
        client.send(good(), None, **{header: value})
        head, said = await client.answer()
        assert (head.split()[1], said["error"]["code"]) == (b"403", code)


async def test_a_client_that_waits_to_be_told_to_send_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with full(monkeypatch) as server:
        client = await server.connect()
        client.send(b"", len(good()), expect="100-continue")
        async with asyncio.timeout(20):
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(good())
        await client.refused()


async def test_another_model_is_not_refused_and_a_body_that_stops_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async with full(monkeypatch, body_timeout_s=0.5) as server:
        client = await server.connect()
        client.send(good().replace(b"blip-large", b"no-such-model"))
        assert (await client.answer())[0].startswith(b"HTTP/1.1 404 ")
        client.send(b'{"messages": [', 100)
        assert (await client.answer())[0].startswith(b"HTTP/1.1 408 ")


async def test_of_a_large_body_the_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with full(monkeypatch, max_body_bytes=DROPPED_BYTES) as server:
        client = await server.connect()
        client.send(NAMED, DROPPED_BYTES + 1)
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"\r\nconnection: close\r\n" in head


async def test_openais_client_sees_the_refusal_of_a_body_that_it_still_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes the messages first, so that this one is known by its end; and twice over one connection."""
    async with full(monkeypatch) as server:
        messages: Any = [*(user() for _ in range(10)), {"role": "user", "content": "x" * 200_000}]
        url = f"http://127.0.0.1:{server.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=20) as sdk:
            for _ in range(2):
                with pytest.raises(openai.InternalServerError) as caught:
                    await sdk.chat.completions.create(model=MODEL, messages=messages)
                assert caught.value.code == "overloaded"
                assert caught.value.response.headers["retry-after"] == "2"
        assert len(server.records) == 2


# Names


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"model":"m","messages":[{"role":"user"', "m"),
        (b'{"temperature": 0, "model" : "m", "mess', "m"),
        (b'{"metadata":{"model":"other"},"mess', None),
        (b'{"messages":[{"role":"user","content":"\\"model\\":\\"other\\"', None),
        (b'{"messages":[' + b" " * HEAD_BYTES + b'],"model":"m"}', None),
        (b'{"stop":["model"],"x":', None),
        (b'{"model":"\\u006d"', None),
        (b'{"model":"m","models":["other"],"mess', None),
        (b"\xff\xfe\x00", None),
        (b"", None),
    ],
)
def test_a_name_before_the_messages_is_found(text: bytes, found: str | None) -> None:
    assert named(text, whole=False) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"messages":[' + b" " * HEAD_BYTES + b'{}],"model":"m","max_tokens":5}\n', "m"),
        (b'{"messages":[' + b" " * TAIL_BYTES + b'],"model":"m","tools":[{"model":"x"}]}', None),
        (b'{"messages":[' + b" " * TAIL_BYTES + b'],"metadata":{"model":"x"}}', None),
        (b'{"messages":[' + b" " * HEAD_BYTES + b'],"model":"m"' + b" " * TAIL_BYTES + b"}", None),
        (b'{"messages":[' + b" " * HEAD_BYTES + b'],"model":"m","models":["other"]}', None),
    ],
)
def test_a_name_behind_them_is_found_once_all_has_arrived(text: bytes, found: str | None) -> None:
    assert (named(text, whole=False), named(text, whole=True)) == (None, found)
