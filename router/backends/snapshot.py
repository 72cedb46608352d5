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

QUIET_SHARE = 0.1
"""Of the time for which nothing has changed, a snapshot may be so old: whoever waits for a change waits a tenth longer
for it."""


class Snapshot(Generic[T]):
    """What ``read`` returns, read again when it is too old: seldom while nothing changes, and soon where something has.

        changed, or failed, or said to be wrong    max_age_s
        the same ever since                        a tenth of that time, up to quiet_age_s

    The controller may be lost, with its node, while the models go on answering. Then the last snapshot is used, however
    old it is: no caller waits longer than ``patience_s`` for a new one, and none at all once it is known to be away.
    """

    def __init__(
        self, read: Callable[[], T], max_age_s: float, patience_s: float = 2.0, *, quiet_age_s: float | None = None
    ) -> None:
        """``read`` blocks, and is called in a thread; without ``quiet_age_s``, it is called however quiet it is."""
        self._read = read
        self._max_age_s = max_age_s
        self._quiet_age_s = max_age_s if quiet_age_s is None else quiet_age_s
        self._patience_s = patience_s
        self._last: T | None = None
        self._read_at = float("-inf")
        self._asked_at = float("-inf")
        self._good_at = float("-inf")
        self._changed_at = float("-inf")
        self._away = False
        self._reading: asyncio.Task[T] | None = None

    @property
    def last(self) -> T | None:
        """The last state without asking for another; None if there has never been an answer."""
        return self._last

    @property
    def age_s(self) -> float:
        """How long ago :attr:`last` was read; infinite if never."""
        return _now() - self._good_at

    def doubt(self) -> None:
        """What is known may be wrong: something has happened that it does not tell."""
        self._changed_at = _now()

    async def latest(self, *, is_good: Callable[[T], bool] = lambda _state: True) -> T:
        """The last state; one that is not good is at most ``max_age_s`` old, however quiet it has been.

        Raises:
            ModelNotReady: There has never been an answer.
        """
        soon = self._last is not None and not is_good(self._last)
        if _now() - self._read_at > (self._max_age_s if soon else self._age_limit_s):
            await self._refresh()
        if self._last is None:
            raise ModelNotReady("The cluster does not answer yet; try again in a moment.")
        return self._last

    @property
    def _age_limit_s(self) -> float:
        quiet_s = self._read_at - self._changed_at
        return min(self._quiet_age_s, max(self._max_age_s, quiet_s * QUIET_SHARE))

    async def _refresh(self) -> None:
        """Wait for the one reader that runs at a time, which is started if there is none."""
        if self._reading is None:
            self._asked_at = _now()
            # Its lines in the log are of no request, although one has waited for it first.
            self._reading = asyncio.create_task(asyncio.to_thread(self._read), context=Context())
            self._reading.add_done_callback(self._take)
        if self._away and self._last is not None:
            return
        patience = max(0.0, self._asked_at + self._patience_s - _now())
        if not (await asyncio.wait({self._reading}, timeout=patience))[0]:
            self._lose("no answer")

    def _take(self, reading: asyncio.Task[T]) -> None:
        self._reading = None
        if reading.cancelled():
            return
        self._read_at = _now()
        if (error := reading.exception()) is not None:
            self._lose(type(error).__name__)
            return
        if self._away:
            logger.warning("the cluster's applications can be read again; the last state was %.0f s old", self.age_s)
        if (read := reading.result()) != self._last:
            self._changed_at = self._read_at
        self._last, self._good_at, self._away = read, self._read_at, False

    def _lose(self, why: str) -> None:
        """Note that the controller is away, and log it once."""
        self.doubt()
        if not self._away:
            logger.warning("the cluster's applications cannot be read (%s): the last state is kept until they can", why)
        self._away = True


def _now() -> float:
    return asyncio.get_running_loop().time()
