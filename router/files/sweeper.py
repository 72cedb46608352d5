"""Removes what has expired while nobody asks, as long as the router runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from router.asgi.deadline import give_up
from router.files.store import FileStore
from vlm.errors import VlmError

SWEEP_S = 300
"""Time between two sweeps of a replica, on average: they differ, so that replicas do not all sweep at the same time."""


@asynccontextmanager
async def sweeping(store: FileStore | None) -> AsyncIterator[None]:
    """Sweep ``store``, if there is one, now and then until the end of the block."""
    task = None if store is None else asyncio.create_task(keep_sweeping(store))
    try:
        yield
    finally:
        await give_up(task)


async def keep_sweeping(store: FileStore) -> None:
    """Sweep for ever."""
    while True:
        await asyncio.sleep(SWEEP_S * random.uniform(0.5, 1.5))  # noqa: S311  # not a secret
        with suppress(VlmError):  # it has been logged, and the next sweep does the same
            await store.sweep()
