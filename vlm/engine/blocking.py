"""Blocking calls on an asynchronous engine, from any thread, even one in which an event loop runs (a notebook's)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from vlm.engine.places import Demand
from vlm.types import Completion, Request

T = TypeVar("T")
Complete = Callable[[Request], Coroutine[Any, Any, Completion]]


class BlockingCalls:
    """Answers requests for callers that block; all together, they never ask for more places than one caller may hold.

    Each call has an event loop in a thread of its own, so that it neither needs nor disturbs the caller's.
    """

    def __init__(self, places: int, demand: Callable[[Request], Demand]) -> None:
        """``places``: maximum number of places at once; ``demand`` says what a request takes of them."""
        self._places = places
        self._demand = demand
        self._in_flight = 0  # places, of all callers
        self._changed = threading.Condition()

    def answer_all(
        self, complete: Complete, requests: Iterable[Request], *, return_exceptions: bool
    ) -> list[Completion | BaseException]:
        """See :meth:`vlm.engine.engine.Engine.answer_all`; ``complete`` answers one request."""
        failed = threading.Event()
        tasks: list[asyncio.Task[Completion]] = []
        with _LoopThread() as loop:
            try:
                for request in requests:
                    tasks.append(self._start(complete, request, loop, failed))
                    if failed.is_set() and not return_exceptions:
                        break
                return loop.run(_results(tasks, return_exceptions))
            finally:
                loop.run(_end_all())

    def _start(
        self, complete: Complete, request: Request, loop: _LoopThread, failed: threading.Event
    ) -> asyncio.Task[Completion]:
        """Begin to answer a request, as soon as the engine has room for it."""
        count = min(self._demand(request).places, self._places)  # one that takes more is refused, or waits for all

        def ended(task: asyncio.Task[Completion]) -> None:
            self._release(count)
            if task.cancelled() or task.exception() is not None:
                failed.set()

        self._acquire(count)
        return loop.run(_begin(complete(request), ended))

    def _acquire(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight + count <= self._places)
            self._in_flight += count

    def _release(self, count: int) -> None:
        with self._changed:
            self._in_flight -= count
            self._changed.notify_all()


class _LoopThread:
    """An event loop in a thread of its own, until the ``with`` block ends."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="blocking call", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the result of ``work``."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _begin(
    work: Coroutine[Any, Any, Completion], ended: Callable[[asyncio.Task[Completion]], None]
) -> asyncio.Task[Completion]:
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(ended)
    return task


async def _results(
    tasks: Iterable[asyncio.Task[Completion]], return_exceptions: bool
) -> list[Completion | BaseException]:
    return list(await asyncio.gather(*tasks, return_exceptions=return_exceptions))


async def _end_all() -> None:
    """Cancel all that still runs on this loop, and wait until it has ended."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
