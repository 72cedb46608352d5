"""Work that several wait for, and that is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from router.asgi.deadline import give_up

T = TypeVar("T")


class Once(Generic[T]):
    """The result of some work, begun by the first who asks for it; nobody who leaves takes it from the others."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The result. Raises what the work raises, each time."""
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await asyncio.shield(self._task)

    @property
    def done(self) -> bool:
        """Whether there is a result, or an error."""
        return self._task is not None and self._task.done()

    async def end(self) -> None:
        """Give the work up if it goes on. Nobody waits for it any more."""
        await give_up(self._task)
