"""The router's own HTTP server, and the class that Serve runs it in."""

from __future__ import annotations

import asyncio
import signal
import socket

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from router.app import ListeningRouter
from router.config import RouterConfig
from router.server import HttpServer
from tests.deployments.system import free_port
from tests.router.world import FakeBackend
from vlm.errors import ConfigError, EngineFailure

pytestmark = pytest.mark.anyio

APP = Starlette(routes=[Route("/", PlainTextResponse("hello"))])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def at(port: int) -> RouterConfig:
    return RouterConfig(listen=f"127.0.0.1:{port}")


async def got(port: int, path: str = "/") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


async def ended(server: HttpServer) -> None:
    server.stop()
    async with asyncio.timeout(20):
        while server.is_serving:
            await asyncio.sleep(0.02)


async def test_serves_until_it_is_stopped_and_leaves_the_signals_alone() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    port = free_port()
    server = HttpServer(APP, at(port))
    before = server.is_serving
    server.start()
    assert (before, server.is_serving) == (False, True)
    assert (await got(port)).text == "hello"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    await ended(server)
    with pytest.raises(httpx.ConnectError):
        await got(port)


async def test_limits_the_heads_of_requests() -> None:
    port = free_port()
    server = HttpServer(APP, at(port))
    server.start()
    async with httpx.AsyncClient(trust_env=False) as client:
        long = await client.get(f"http://127.0.0.1:{port}/", headers={f"x-{n}": "y" * 10_000 for n in range(50)})
    assert long.status_code == 431
    await ended(server)


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"):
            HttpServer(APP, at(port)).start()


async def test_a_router_whose_server_has_ended_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.app.RayBackend", FakeBackend)
    port = free_port()
    router = object.__new__(ListeningRouter)
    await router.__init__(at(port))  # type: ignore[misc]  # as Serve does
    router.check_health()
    assert (await got(port, "/healthz")).json() == {"status": "ok"}
    router.__del__()
    await ended(router._server)
    with pytest.raises(EngineFailure, match="HTTP server has ended"):
        router.check_health()
