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
        clock: Callable[[], float],
    ) -> None:
        """Nothing waits.

        Args:
            max_held: See :class:`~router.config.RouterConfig`.
            cold_start_s: Likewise; of each model, until it has been measured.
            asleep: Whether a model has no replica, though a request starts one.
            clock: In seconds.
        """
        self._max_held = max_held
        self._stated_s = cold_start_s
        self._asleep = asleep
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
    async def waiting(self, model: str, remaining_s: float) -> AsyncIterator[None]:
        """A request that has to be answered within ``remaining_s``, for as long as the block lasts.

        Raises:
            Overloaded: The model has no replica, and the request could not be answered in time, or too many wait.
        """
        if not await self._asleep(model):
            self._has_started(model)
            yield
            return
        start = self._starts.setdefault(model, _Start(self._clock()))
        self._check(start, model, remaining_s)
        start.held += 1
        answered = False
        try:
            yield
            answered = True
        finally:
            start.held -= 1
            if self._starts.get(model) is start:
                self._note_end(start, model, answered)

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

    def _note_end(self, start: _Start, model: str, answered: bool) -> None:
        if answered:
            self._has_started(model)
        elif not start.held:  # all have left, and whether a replica is still being started is not known here
            del self._starts[model]

    def _has_started(self, model: str) -> None:
        if (start := self._starts.pop(model, None)) is not None:
            self._measured_s[model] = self._clock() - start.since
