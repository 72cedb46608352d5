"""Fixtures of the router's tests: asyncio for async tests, and a real server for real clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from router.app import create_app
from router.config import RouterConfig
from tests.listening import listening
from tests.router.world import FakeBackend


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(frozen=True)
class Live:
    """A router that listens on a real port, and the world behind it."""

    url: str
    backend: FakeBackend


@pytest.fixture(scope="session")
def live() -> Iterator[Live]:
    backend = FakeBackend()
    with listening(create_app(backend, RouterConfig(max_body_bytes=1024 * 1024, keep_alive_s=0.1))) as url:
        yield Live(url, backend)
