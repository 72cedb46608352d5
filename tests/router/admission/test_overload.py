"""What clients see of the rule, through the whole application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.router.web import Say, Web, answer, serving
from tests.router.world import CHAT, body, check_error, image_part, script, user, words
from vlm.pace import UNKNOWN_RETRY_S
from vlm.types import Chunk, Request

pytestmark = pytest.mark.anyio

MODEL = "blip-large"


class Gate:
    """An engine with two slots that answers when it is told to."""

    slots = rows = 2

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked = 0

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        self.asked += 1
        await self.open.wait()
        for chunk in script(words()):
            yield chunk


class Clients:
    """Clients of a router before one engine; each asks about images of its own on a web."""

    def __init__(self, engine: Gate, web: Web) -> None:
        config = RouterConfig(image_ports=(web.port,), allowed_image_networks=("127.0.0.0/8",))
        self.app: ASGIApp = create_app(LocalBackend({MODEL: engine}), config)
        self._web = web

    def ask(self, caller: str, number: int = 0, page: bytes | Say = answer()) -> asyncio.Task[httpx.Response]:
        path = f"/{caller.replace(' ', '-')}/{number}.png"
        self._web.pages[path] = page
        part = image_part(f"http://127.0.0.1:{self._web.port}{path}")
        return asyncio.create_task(self._post(caller, body(messages=[user(part)])))

    async def bring(self, caller: str) -> httpx.Response:
        """Asks about an image that is part of the request."""
        return await self._post(caller, body())

    async def _post(self, caller: str, request: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://router") as http:
            return await http.post(CHAT, json=request, headers={"authorization": f"Bearer {caller}"})


async def until_ended(tasks: list[asyncio.Task[httpx.Response]], number: int) -> list[httpx.Response]:
    async with asyncio.timeout(20):
        while sum(task.done() for task in tasks) < number:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
    return [task.result() for task in tasks if task.done()]


async def test_a_flood_is_refused_before_an_image_is_fetched_and_a_polite_caller_gets_through() -> None:
    engine = Gate()
    async with serving({}) as web:
        clients = Clients(engine, web)
        flood = [clients.ask("flood", number) for number in range(20)]
        refused = await until_ended(flood, 17)
        for one in refused:
            check_error(one, 503, "overloaded", None)
            assert one.headers["retry-after"] == str(UNKNOWN_RETRY_S)
        polite = clients.ask("polite")
        await web.until(lambda: any(b"/polite/" in request for request in web.requests))
        engine.open.set()
        assert (await polite).status_code == 200
        answered = [one.status_code for one in await asyncio.gather(*flood)].count(200)
        assert answered in (1, 2, 3), "as many as may load at once, and more if the first has come by then"
        assert engine.asked == len(web.requests) == answered + 1, "nothing was done for the others"


async def test_slow_images_under_made_up_keys_keep_nobody_out_who_brings_one() -> None:
    engine, arriving = Gate(), asyncio.Event()
    engine.open.set()

    async def slowly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await arriving.wait()
        writer.write(answer())
        await writer.drain()

    async with serving({}) as web:
        clients = Clients(engine, web)
        slow = [clients.ask(f"made up {number}", page=slowly) for number in range(4)]
        for one in await until_ended(slow, 2):
            check_error(one, 503, "overloaded", None)
            assert "waits for the images" in one.json()["error"]["message"]
        brings = [await clients.bring(f"caller {number}") for number in range(4)]
        assert [one.status_code for one in brings] == [200] * 4
        arriving.set()
        assert sorted(one.status_code for one in await asyncio.gather(*slow)) == [200] * 2 + [503] * 2


async def that_does_not_read(app: ASGIApp) -> asyncio.Task[None]:
    """A client that has sent a request and does not take the answer, which is there."""
    stuck = asyncio.Event()
    message = {"type": "http.request", "body": json.dumps(body()).encode(), "more_body": False}
    arriving = iter([message])

    async def receive() -> Any:
        return next(arriving, None) or await asyncio.Event().wait()

    async def send(sent: Any) -> None:
        if sent["type"] == "http.response.body":
            stuck.set()
            await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b"",
             "root_path": "", "headers": [], "http_version": "1.1", "scheme": "http"}  # fmt: skip
    asking: asyncio.Task[None] = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        await stuck.wait()
    return asking


async def test_an_answer_that_is_not_read_keeps_nobody_out() -> None:
    engine = Gate()
    engine.open.set()
    async with serving({}) as web:
        clients = Clients(engine, web)
        slow = [await that_does_not_read(clients.app) for _ in range(6)]
        assert (engine.asked, (await clients.ask("quick")).status_code) == (6, 200)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
