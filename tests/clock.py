"""An event loop with a clock of its own: a pause of a minute takes no time, and one of 20 ms takes exactly that."""

from __future__ import annotations

import asyncio
import selectors
from asyncio import Future
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

REAL_S = 20.0
"""For how long a loop waits in real time for a thread or a socket before it says that nothing will happen."""


class ClockedLoop(asyncio.SelectorEventLoop):
    """Its time stands still while there is work, here or in a thread, and jumps to the next timer when there is none.

    For code that reads the loop's time. Sockets are served, but the time does not wait for them. A generator that is
    dropped instead of closed stays unfinished: another loop would have it closed by the garbage collector.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        self._threads = 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Let ``seconds`` pass at once, unless a thread works."""
        if not self._threads:
            self._now += seconds

    def busy(self) -> bool:
        """Whether a thread works."""
        return self._threads > 0

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> Future[T]:  # type: ignore[override]
        work: Future[T] = super().run_in_executor(executor, func, *args)
        self._threads += 1
        work.add_done_callback(self._ended)
        return work

    def _asyncgen_finalizer_hook(self, generator: Any) -> None:
        """Replaces asyncio's, which closes a generator that nothing refers to any more."""

    def _ended(self, _work: Future[Any]) -> None:
        self._threads -= 1


class _Selector(selectors.DefaultSelector):
    """Passes the loop's time instead of waiting."""

    def __init__(self, loop: ClockedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if ready := super().select(0):
            return ready
        if timeout is None or (timeout > 0 and self._loop.busy()):
            if not (ready := super().select(REAL_S)):
                raise TimeoutError("the loop waits for something that does not happen")
            return ready
        self._loop.pass_time(timeout)
        return []


CLOCKED = ("asyncio", {"loop_factory": ClockedLoop})
"""What a fixture ``anyio_backend`` returns to run the async tests of a module on a clock of their own."""


def run_clocked(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on a clock of its own."""
    with asyncio.Runner(loop_factory=ClockedLoop) as runner:
        return runner.run(work)
