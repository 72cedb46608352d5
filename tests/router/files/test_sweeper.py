"""Sweeps come again and again, whatever becomes of one, and end with the router."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from router.app import create_app
from router.config import RouterConfig
from router.files.latest import Latest
from router.files.store import FileStore
from router.files.sweeper import SWEEP_S, sweeping
from tests.clock import CLOCKED
from tests.router.files.world import World
from tests.router.world import FakeBackend
from vlm.errors import VlmError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return CLOCKED


class Sweeping(FileStore):
    """Counts its sweeps, the first of which fails."""

    sweeps = 0

    async def sweep(self) -> None:
        self.sweeps += 1
        if self.sweeps == 1:
            raise VlmError("No.")


async def test_it_goes_on_until_the_end(tmp_path: Path) -> None:
    store = Sweeping(World(tmp_path / "files").objects(), RouterConfig())
    async with sweeping(store):
        await asyncio.sleep(SWEEP_S * 20)
        assert 13 <= store.sweeps <= 41
    ended = store.sweeps
    await asyncio.sleep(SWEEP_S * 20)
    assert store.sweeps == ended


async def test_there_is_nothing_to_do_without_a_store() -> None:
    async with sweeping(None):
        pass


async def test_the_router_sweeps_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = asyncio.Event()

    async def sweep(_store: FileStore) -> None:
        swept.set()

    monkeypatch.setattr(FileStore, "sweep", sweep)
    app = create_app(FakeBackend(), RouterConfig(files_url=str(tmp_path / "files")))
    async with app.router.lifespan_context(app):
        await swept.wait()


async def test_latest_shares_the_run_that_begins_after_it_was_asked() -> None:
    began: list[int] = []
    go_on = asyncio.Event()

    async def work() -> int:
        began.append(len(began) + 1)
        await go_on.wait()
        return len(began)

    latest = Latest(work)
    first = asyncio.create_task(latest())
    await asyncio.sleep(0.1)
    later = [asyncio.create_task(latest()) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert began == [1]  # no two at a time
    later[0].cancel()  # and the others get theirs all the same
    go_on.set()
    assert await first == 1
    assert await asyncio.gather(*later[1:]) == [2] * 4
    assert await latest() == 3


async def test_latest_passes_errors_on_and_forgets_them() -> None:
    outcomes = [VlmError("No."), None]

    async def work() -> str:
        if error := outcomes.pop(0):
            raise error
        return "done"

    latest = Latest(work)
    with pytest.raises(VlmError):
        await latest()
    assert await latest() == "done"
