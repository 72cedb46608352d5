"""The one rule by which requests are let in. Pure Python; knows no HTTP, and not where answers come from.

Of each model, the router knows what it has let in and not yet answered, in places::

    worked on     places_per_replica for each replica that runs
    waiting       as many again, so that the queue at most doubles the time of an answer
    more          is refused, and so is what would wait longer than max_queue_s or its own deadline

Little's law makes seconds of places: what waits is served in as many seconds as it has places, over the places served a
second. Both numbers are the router's own, so they are never late, and they hold for each of several routers.

A caller has at most CALLER_SHARE percent of what the others leave, as in the engine, so that one who floods is refused
while others find room. Since the engine serves callers in turn, a request waits for its caller's own requests times the
number of callers, or for all, whichever is less.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from router.admission.pace import Pace
from vlm.errors import Overloaded

CALLER_SHARE = 90
"""Percent: the engine's own default."""
LONGEST_RETRY_S = 60
"""Clients of OpenAI's give up where they are told to wait longer than two minutes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as admission is concerned.

    Attributes:
        model: Canonical name.
        caller: Who asks.
        places: How many generations it has.
        remaining_s: Seconds until its deadline.
    """

    model: str
    caller: str
    places: int
    remaining_s: float


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What one router has let in for a model.

    Attributes:
        held: Places of the requests that have not ended.
        worked_on: Places that are worked on at once; what is held beyond them waits.
        limit: Places that are held at most.
        queue_s: Seconds that a request which came now would wait for its turn; None where no pace has been measured.
    """

    held: int
    worked_on: int
    limit: int
    queue_s: float | None


class Ticket:
    """A request that has been let in. ``answered`` is set when it was answered in full."""

    answered = False


@dataclass(slots=True)
class _Model:
    held: Counter[str] = field(default_factory=Counter)  # places by caller, none of them 0
    total: int = 0
    pace: Pace = field(default_factory=Pace)


class Admission:
    """What one router has let in, by model. Used in one event loop."""

    def __init__(
        self,
        places_per_replica: int,
        max_queue_s: float,
        replicas: Callable[[str], int],
        clock: Callable[[], float],
    ) -> None:
        """Nothing has been let in.

        Args:
            places_per_replica: See :class:`~router.config.RouterConfig`.
            max_queue_s: Likewise.
            replicas: How many replicas of a model run.
            clock: In seconds.
        """
        self._each = places_per_replica
        self._max_queue_s = max_queue_s
        self._running = replicas
        self._clock = clock
        self._models: dict[str, _Model] = {}

    def outstanding(self, model: str) -> int:
        """Places of the requests that were let in and have not ended."""
        state = self._models.get(model)  # once, since any thread may ask
        return 0 if state is None else state.total

    def load(self, model: str) -> ModelLoad:
        """What is held, and for how long the next request would wait."""
        state = self._models.get(model) or _Model()
        worked_on = self._worked_on(model)
        ahead = state.total + 1 - worked_on
        queue_s = self._wait_s(state, model, ahead) if state.pace.is_known or ahead <= 0 else None
        return ModelLoad(state.total, worked_on, 2 * worked_on, queue_s)

    @contextmanager
    def admitted(self, asked: Asked) -> Iterator[Ticket]:
        """The request is let in until the end of the block.

        Raises:
            Overloaded: There is no room for it, or it could not be answered in time.
        """
        state = self._models.get(asked.model) or _Model()
        self._check(state, asked)
        self._models[asked.model] = state
        self._count(state, asked, asked.places)
        ticket = Ticket()
        try:
            yield ticket
        finally:
            if ticket.answered:
                state.pace.served(asked.places, self._replicas(asked.model), self._clock())
            self._count(state, asked, -asked.places)
            if not state.total and not state.pace.is_known:  # perhaps there is no such model
                self._models.pop(asked.model, None)

    def _count(self, state: _Model, asked: Asked, places: int) -> None:
        state.total += places
        state.held[asked.caller] += places
        if not state.held[asked.caller]:
            del state.held[asked.caller]
        state.pace.changed(self._clock(), busy=state.total >= self._worked_on(asked.model))

    def _replicas(self, model: str) -> int:
        return max(1, self._running(model))

    def _worked_on(self, model: str) -> int:
        return self._each * self._replicas(model)

    def _check(self, state: _Model, asked: Asked) -> None:
        held, worked_on = state.held.get(asked.caller, 0), self._worked_on(asked.model)
        if not state.total:
            return  # whatever it is, nothing is before it
        limit = 2 * worked_on
        others = state.total - held
        share = limit - others if not held else (limit - others) * CALLER_SHARE // 100
        ahead = min(state.total, held * len(state.held))
        wait_s = self._wait_s(state, asked.model, ahead + asked.places - worked_on)
        late = state.pace.is_known and wait_s > min(self._max_queue_s, asked.remaining_s)
        if late or held + asked.places > share:
            raise self._refusal(state, asked)

    def _refusal(self, state: _Model, asked: Asked) -> Overloaded:
        ahead = state.total + asked.places - self._worked_on(asked.model)
        seconds = retry_after(self._wait_s(state, asked.model, ahead))
        return Overloaded(
            f"The model {asked.model!r} has as many requests as it can answer in time; try again in {seconds} s.",
            code="overloaded",
            retry_after_s=seconds,
        )

    def _wait_s(self, state: _Model, model: str, places: int) -> float:
        return state.pace.seconds(max(0, places), self._replicas(model), self._clock())


def retry_after(seconds: float) -> int:
    """Whole seconds, from 1 on, after which a queue of so many seconds has been served."""
    return max(1, min(LONGEST_RETRY_S, math.ceil(seconds)))
