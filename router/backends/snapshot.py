"""The last state of the cluster that is known, read in a thread and never waited for long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

from vlm.errors import ModelNotReady

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Snapshot(Generic[T]):
    """What ``read`` returns, read again when it is older than ``max_age_s``.

    The controller may be lost, with its node, while the models go on answering. Then the last snapshot is used, and no
    caller waits longer than ``patience_s`` for a new one.
    """

    def __init__(self, read: Callable[[], T], max_age_s: float, patience_s: float = 2.0) -> None:
        """``read`` blocks, and is called in a thread."""
        self._read = read
        self._max_age_s = max_age_s
        self._patience_s = patience_s
        self._last: T | None = None
        self._read_at = float("-inf")
        self._asked_at = float("-inf")
        self._reading: asyncio.Task[T] | None = None

    @property
    def last(self) -> T | None:
        """The last state without asking for another; None if there has never been an answer."""
        return self._last

    async def latest(self) -> T:
        """The last state.

        Raises:
            ModelNotReady: There has never been an answer.
        """
        if _now() - self._read_at > self._max_age_s:
            await self._refresh()
        if self._last is None:
            raise ModelNotReady("The cluster does not answer yet; try again in a moment.")
        return self._last

    async def _refresh(self) -> None:
        """Wait for the one reader that runs at a time, which is started if there is none."""
        if self._reading is None:
            self._asked_at = _now()
            # Its lines in the log are of no request, although one has waited for it first.
            self._reading = asyncio.create_task(asyncio.to_thread(self._read), context=Context())
            self._reading.add_done_callback(self._take)
        patience = max(0.0, self._asked_at + self._patience_s - _now())
        await asyncio.wait({self._reading}, timeout=patience)

    def _take(self, reading: asyncio.Task[T]) -> None:
        self._reading = None
        if reading.cancelled():
            return
        self._read_at = _now()
        if (error := reading.exception()) is None:
            self._last = reading.result()
        else:
            logger.warning("the cluster's applications cannot be read: %s", type(error).__name__)


def _now() -> float:
    return asyncio.get_running_loop().time()
