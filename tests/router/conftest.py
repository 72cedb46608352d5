"""Fixtures of the router's tests: asyncio for async tests, and a real server for real clients."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import uvicorn
from starlette.applications import Starlette

from router.app import create_app
from router.config import RouterConfig
from tests.router.world import FakeBackend


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Live:
    """A router that listens on a real port, and the world behind it."""

    url: str
    backend: FakeBackend


@contextmanager
def listening(app: Starlette) -> Iterator[str]:
    """``app`` on a real port of this machine; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="session")
def live() -> Iterator[Live]:
    backend = FakeBackend()
    with listening(create_app(backend, RouterConfig(max_body_bytes=1024 * 1024, keep_alive_s=0.1))) as url:
        yield Live(url, backend)
