"""Moondream's routes over real engines: the small model with the original's answers, and a miniature that segments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.listening import listening
from tests.oracle import MINIATURES
from tests.vlm.models.moondream2.driver import DATA
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load

FOLDERS = {"moondream-2": DATA, "florence-2-base": MINIATURES / "florence-2-base"}


@dataclass(frozen=True)
class World:
    """A router that listens on a real port, and its engines."""

    url: str
    engines: Mapping[str, Engine]


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    settings = EngineConfig(max_batch=8, max_waiting=16, cache_bytes=2**26)
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(Engine(load(folder, dtype="float32"), settings))
            for name, folder in FOLDERS.items()
        }
        app = create_app(LocalBackend(engines), RouterConfig(max_body_bytes=2**20))
        yield World(stack.enter_context(listening(app)), engines)
