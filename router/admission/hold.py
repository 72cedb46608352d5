"""How many requests wait for a model that has no replica yet. Pure Python; knows no HTTP, and not what starts one.

A model that is scaled to zero is started by its first request, which takes longer than most answers. Requests that come
meanwhile wait with it, with their images in this process, so they are only so many, and none waits that would be late:
the others are refused, and told when the replica is expected.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vlm.errors import Overloaded
from vlm.pace import LONGEST_RETRY_S


@dataclass(slots=True)
class _Start:
    """A replica that is being started.

    Attributes:
        since: When the first of those came that wait.
        held: How many requests wait.
    """

    since: float
    held: int = 0


class Hold:
    """The requests of one router that wait for a replica, by model. Used in one event loop."""

    def __init__(
        self,
        max_held: int,
        cold_start_s: float,
        asleep: Callable[[str], Awaitable[bool]],
        replicas: Callable[[str], int],
        clock: Callable[[], float],
    ) -> None:
        """Nothing waits.

        Args:
            max_held: See :class:`~router.config.RouterConfig`.
            cold_start_s: Likewise; of each model, until it has been measured.
            asleep: Whether a model has no replica, though a request starts one.
            replicas: How many a model has.
            clock: In seconds.
        """
        self._max_held = max_held
        self._stated_s = cold_start_s
        self._asleep = asleep
        self._replicas = replicas
        self._clock = clock
        self._starts: dict[str, _Start] = {}
        self._measured_s: dict[str, float] = {}

    def cold_start_s(self, model: str) -> float:
        """Seconds from the first request to the first answer of a model without a replica, as last measured."""
        return self._measured_s.get(model, self._stated_s)

    def held(self, model: str) -> int:
        """How many requests wait for a replica."""
        start = self._starts.get(model)
        return start.held if start else 0

    @asynccontextmanager
    async def waiting(self, model: str, remaining_s: float) -> AsyncIterator[Callable[[], None]]:
        """A request that has to be answered within ``remaining_s``, for as long as the block lasts.

        Returns:
            What is to be called when the model has answered it.

        Raises:
            Overloaded: The model has no replica, and the request could not be answered in time, or too many wait.
        """
        if not await self._asleep(model):
            self._is_over(model)
            yield lambda: None
            return
        start = self._starts.setdefault(model, _Start(self._clock()))
        self._check(start, model, remaining_s)
        start.held += 1
        try:
            yield lambda: self._has_started(model, start)
        finally:
            start.held -= 1
            if not start.held:  # all have left, and whether a replica is still being started is not known here
                self._forget(model, start)

    def _check(self, start: _Start, model: str, remaining_s: float) -> None:
        """The first one is let in whatever it is: without it, no replica would ever start."""
        left_s = max(0.0, self.cold_start_s(model) - (self._clock() - start.since))
        if start.held and (start.held >= self._max_held or left_s > remaining_s):
            seconds = max(1, min(LONGEST_RETRY_S, math.ceil(left_s)))
            raise Overloaded(
                f"The model {model!r} is being started and cannot answer yet; try again in {seconds} s.",
                code="model_not_ready",
                retry_after_s=seconds,
            )

    def _is_over(self, model: str) -> None:
        """A replica has started; or none could, or the model has been deleted, and that took no start's time."""
        if (start := self._starts.get(model)) is None:
            return
        if self._replicas(model):
            self._has_started(model, start)
        else:
            self._forget(model, start)

    def _has_started(self, model: str, start: _Start) -> None:
        if self._forget(model, start):
            self._measured_s[model] = self._clock() - start.since

    def _forget(self, model: str, start: _Start) -> bool:
        """It is over; whether it was not before."""
        if self._starts.get(model) is not start:
            return False
        del self._starts[model]
        return True
