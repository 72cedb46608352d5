"""The one rule by which requests are let in. Pure Python; knows no HTTP, and not where answers come from.

Of each model, the router knows what it has let in and not yet answered, in places::

    worked on     the slots of the replicas that run, divided by the number of routers that run
    waiting       as many again, so that the queue at most doubles the time of an answer
    more          is refused, and so is what would wait longer than max_queue_s or its own deadline

A request takes the places that the engine counts for it (:mod:`vlm.generations`), but at most the slots of one replica,
so that the largest is let in where nothing is before it. One replica is not counted before it answers, and its slots
are what its engine says.

Little's law makes seconds of places: what waits is served in as many seconds as it has places, over the places served a
second. What is held and how fast it is served, a router knows of itself; how many replicas and routers there are, it
asks the cluster every second. Routers do not tell each other what they have let in: each takes an equal part, as those
who stand before them spread requests evenly. One that gets all of them fills the slots of as many replicas as its two
parts, which are all of them where there are two routers.

A caller has at most CALLER_SHARE percent of what the others leave, so that one who floods is refused while others find
room. Since the engine serves callers in turn, a request waits for its caller's own requests times the
number of callers, or for all, whichever is less.

What is of a batch is let in only while all that is held, with it, is at most BATCH_SHARE percent of the two parts. So
it fills the slots where nobody else asks, and leaves room to all others. What of it waits is not before the others,
because the engine starts them first.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from router.admission.capacity import UNKNOWN_SLOTS, Capacity
from vlm.errors import Overloaded
from vlm.generations import places_for
from vlm.pace import Pace

CALLER_SHARE = 80
"""Percent, less than the engine's own default: three fifths of a batch then wait for a whole one, which keeps all slots
full, and takes an answer to less than twice its time even where refusing others takes a tenth of all CPU time."""
BATCH_CALLER_SHARE = 90
"""Percent of what is left to batches: one caller's alone fills all slots."""
LOST_S = 10.0
"""For how long a replica that is lost counts in how many requests are let in: another one takes its place within
seconds, and until then those that were let in wait longer. How long they wait is told by those that run."""
BATCH_SHARE = 60
"""Percent: enough for all slots and a fifth of them besides, so that one that ends is followed at once by the next."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as admission is concerned.

    Attributes:
        model: Canonical name.
        caller: Who asks.
        remaining_s: Seconds until its deadline.
        generations: How many it takes.
        beams: Number of beams of each; None for what the model does by itself, which takes one place.
        batch: Whether others go first.
    """

    model: str
    caller: str
    remaining_s: float
    generations: int = 1
    beams: int | None = None
    batch: bool = False


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
    """A request that has been let in, until it has been answered or has failed."""

    def __init__(self, leave: Callable[[bool], None]) -> None:
        self._leave: Callable[[bool], None] | None = leave

    def end(self, *, answered: bool = False) -> None:
        """It takes no place any more: it was answered in full, or was given up. Ending again does nothing."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave(answered)


@dataclass(slots=True)
class _Model:
    pace: Pace
    held: Counter[str] = field(default_factory=Counter)  # places by caller, none of them 0
    total: int = 0
    batch: int = 0  # of the total, what is of a batch

    def count(self, asked: Asked, places: int) -> None:
        self.total += places
        self.batch += places if asked.batch else 0
        self.held[asked.caller] += places
        if not self.held[asked.caller]:
            del self.held[asked.caller]

    def before(self, asked: Asked, room: _Room) -> int:
        """Places of what may begin before it."""
        waiting_batch = 0 if asked.batch else max(0, self.batch - room.worked_on)
        return min(self.total - waiting_batch, self.held.get(asked.caller, 0) * len(self.held))


@dataclass(frozen=True, slots=True)
class _Room:
    """What there is for a model at this moment.

    Attributes:
        replicas: How many run; at least 1, since a request starts one where there is none.
        slots, rows: Of each.
        routers: How many routers share them.
        expected: How many replicas run, with those that have been lost a moment ago.
        runs: Whether any replica does; the time in which none does is not the pace of those that do.
    """

    replicas: int
    slots: int
    rows: int
    routers: int
    expected: int
    runs: bool

    @property
    def worked_on(self) -> int:
        """Places of this router's part of the slots."""
        return self._part(self.replicas)

    def limit(self, asked: Asked) -> int:
        """Places that may be held together with it."""
        return 2 * self._part(self.expected) * (BATCH_SHARE if asked.batch else 100) // 100

    def places(self, asked: Asked) -> int:
        """Places that it takes."""
        each = places_for(asked.beams or 1, self.slots, self.rows)
        return min(asked.generations * each, self.slots)

    def _part(self, replicas: int) -> int:
        return -(-self.slots * replicas // self.routers)


REFUSES_S = 1.0
"""How long after a refusal the next ones are expected."""


class Admission:
    """What one router has let in, by model. Used in one event loop."""

    def __init__(
        self,
        capacity: Callable[[str], Capacity],
        max_queue_s: float,
        places_per_replica: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing has been let in.

        Args:
            capacity: What works on a model's requests.
            max_queue_s: See :class:`~router.config.RouterConfig`.
            places_per_replica: Likewise.
            clock: In seconds.
        """
        self._capacity = capacity
        self._max_queue_s = max_queue_s
        self._stated = places_per_replica
        self._clock = clock
        self._models: dict[str, _Model] = {}
        self._refused_at = -math.inf
        self._expected: dict[str, tuple[int, float]] = {}  # replicas of models that run, and until when that counts

    @property
    def refuses(self) -> bool:
        """Whether it has refused a request a moment ago, so that it is worth to look for others."""
        return self._clock() - self._refused_at < REFUSES_S

    def outstanding(self, model: str) -> int:
        """Places of the requests that were let in and have not ended."""
        state = self._models.get(model)  # once, since any thread may ask
        return 0 if state is None else state.total

    def load(self, model: str) -> ModelLoad:
        """What is held, and for how long the next request would wait."""
        room, state = self._room(model), self._models.get(model)
        held = state.total if state else 0
        ahead = held + 1 - room.worked_on
        queue_s: float | None = 0.0
        if ahead > 0:
            queue_s = state.pace.seconds(ahead, room.replicas) if state and state.pace.is_known else None
        return ModelLoad(held, room.worked_on, 2 * room.worked_on, queue_s)

    def refusal(self, asked: Asked) -> Overloaded | None:
        """What :meth:`admitted` would raise now."""
        if (state := self._models.get(asked.model)) is None:
            return None  # nothing has been let in for it
        room = self._room(asked.model)
        return self._refusal(state, room, asked, room.places(asked))

    @contextmanager
    def admitted(self, asked: Asked) -> Iterator[Ticket]:
        """The request is let in until its ticket ends, at the latest at the end of the block.

        Raises:
            Overloaded: There is no room for it, or it could not be answered in time.
        """
        room = self._room(asked.model)
        state = self._models.get(asked.model) or _Model(Pace(room.slots, self._clock))
        places = room.places(asked)
        if (refusal := self._refusal(state, room, asked, places)) is not None:
            raise refusal
        self._models[asked.model] = state
        self._count(state, room, asked, places)
        ticket = Ticket(lambda answered: self._leave(state, asked, places, answered))
        try:
            yield ticket
        finally:
            ticket.end()

    def _leave(self, state: _Model, asked: Asked, places: int, answered: bool) -> None:
        room = self._room(asked.model)
        if answered:
            state.pace.served(places, room.replicas)
        self._count(state, room, asked, -places)
        if not state.total and not state.pace.is_known:  # perhaps there is no such model
            self._models.pop(asked.model, None)

    def _count(self, state: _Model, room: _Room, asked: Asked, places: int) -> None:
        state.count(asked, places)
        state.pace.changed(busy=room.runs and state.total >= room.worked_on)

    def _room(self, model: str) -> _Room:
        known = self._capacity(model)
        slots = self._stated or known.slots or UNKNOWN_SLOTS
        rows = max(slots, slots * known.rows // known.slots) if known.slots else slots
        expected = max(1, self._replicas_expected(model, known.replicas))
        return _Room(max(1, known.replicas), slots, rows, max(1, known.routers), expected, known.replicas > 0)

    def _replicas_expected(self, model: str, running: int) -> int:
        before, until = self._expected.get(model, (0, 0.0))
        if running < before and self._clock() < until:
            return before
        if running:
            self._expected[model] = (running, self._clock() + LOST_S)
        else:
            self._expected.pop(model, None)
        return running

    def _refusal(self, state: _Model, room: _Room, asked: Asked, places: int) -> Overloaded | None:
        if not state.total:
            return None  # nothing is before it, and one replica has room for it
        held = state.held.get(asked.caller, 0)
        left = room.limit(asked) - (state.total - held)
        share = left if not held else left * (BATCH_CALLER_SHARE if asked.batch else CALLER_SHARE) // 100
        wait_s = state.pace.seconds(state.before(asked, room) + places - room.worked_on, room.replicas)
        late = state.pace.is_known and wait_s > min(self._max_queue_s, asked.remaining_s)
        if not late and held + places <= share:
            return None
        self._refused_at = self._clock()
        return _refusal(state, room, asked, places)


def _refusal(state: _Model, room: _Room, asked: Asked, places: int) -> Overloaded:
    seconds = state.pace.retry_after_s(state.total + places - room.worked_on, room.replicas)
    answers = "room for no more of a batch" if asked.batch else "as many requests as it can answer in time"
    return Overloaded(
        f"The model {asked.model!r} has {answers}; try again in {seconds} s.",
        code="overloaded",
        retry_after_s=seconds,
    )
