"""Work whose result many want at the same time, done as seldom as possible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Gives each caller the result of a run that began after its call, with one run at a time.

    All callers during one run share the next one, however many they are.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        if self._next is None:
            self._next = asyncio.create_task(self._run_after(self._running))
            self._next.add_done_callback(_seen)
        return await asyncio.shield(self._next)  # it may be cancelled for one, and others wait for it

    async def _run_after(self, earlier: asyncio.Task[T] | None) -> T:
        if earlier is not None:
            await asyncio.wait({earlier})
        self._running, self._next = self._next, None  # calls from here on need another run
        return await self._work()


def _seen(task: asyncio.Task[T]) -> None:
    """Whoever waited has been told; where nobody waits any more, asyncio need not report the error."""
    if not task.cancelled():
        task.exception()
