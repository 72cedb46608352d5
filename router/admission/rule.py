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

Where images are downloaded, a request takes its places before they have come, so that nothing is fetched for one
that is refused. Until they are here it does not wait for its turn, and all such requests together have at most
LOADING_SHARE percent: whoever has slow images cannot keep the model from those who bring theirs.

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
from vlm.pace import UNKNOWN_RETRY_S, Pace

CALLER_SHARE = 80
"""Percent, less than the engine's own default: three fifths of a batch then wait for a whole one, which keeps all slots
full, and takes an answer to less than twice its time even where refusing others takes a tenth of all CPU time."""
BATCH_CALLER_SHARE = 90
"""Percent of what is left to batches: one caller's alone fills all slots."""
LOADING_SHARE = 50
"""Percent; the other half is left to what has its images."""
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
        loads: Whether images are downloaded for it.
    """

    model: str
    caller: str
    remaining_s: float
    generations: int = 1
    beams: int | None = None
    batch: bool = False
    loads: bool = False


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What one router has let in for a model.

    Attributes:
        held: Places of the requests that have not ended.
        worked_on: Places that are worked on at once; what is held beyond them, and has its images, waits.
        limit: Places that are held at most.
        queue_s: Seconds that a request which came now would wait for its turn; None where no pace has been measured.
    """

    held: int
    worked_on: int
    limit: int
    queue_s: float | None


class Ticket:
    """A request that has been let in, until it has been answered or has failed."""

    def __init__(self, leave: Callable[[bool, bool], None], loaded: Callable[[], None] | None = None) -> None:
        """``leave`` is told whether it was answered, and whether its images never came."""
        self._leave: Callable[[bool, bool], None] | None = leave
        self._loaded = loaded

    def loaded(self) -> None:
        """Its images are here, and it waits for its turn. Saying so again does nothing."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded()

    def end(self, *, answered: bool = False) -> None:
        """It takes no place any more: it was answered in full, or was given up. Ending again does nothing."""
        leave, self._leave = self._leave, None
        if leave is not None:
            loading, self._loaded = self._loaded is not None, None
            leave(answered, loading)


@dataclass(slots=True)
class _Places:
    """How many places each caller holds."""

    by_caller: Counter[str] = field(default_factory=Counter)  # none of them 0
    total: int = 0

    def add(self, caller: str, places: int) -> None:
        self.total += places
        self.by_caller[caller] += places
        if not self.by_caller[caller]:
            del self.by_caller[caller]

    def fit(self, caller: str, places: int, limit: int, percent: int) -> bool:
        """Whether a caller may hold so many more: it has what the others leave, or a part of that if it holds some."""
        own = self.by_caller.get(caller, 0)
        left = limit - (self.total - own)
        return own + places <= (left * percent // 100 if own else left)


@dataclass(slots=True)
class _Model:
    pace: Pace
    held: _Places = field(default_factory=_Places)
    loading: _Places = field(default_factory=_Places)  # of those that are held, whose images have not come
    batch: int = 0  # of those that are held, what is of a batch
    batch_loading: int = 0  # of these, whose images have not come

    @property
    def arrived(self) -> int:
        """Places of what waits for its turn or is worked on."""
        return self.held.total - self.loading.total

    def load(self, asked: Asked, places: int) -> None:
        self.batch_loading += places if asked.batch else 0
        self.loading.add(asked.caller, places)

    def count(self, asked: Asked, places: int) -> None:
        self.batch += places if asked.batch else 0
        self.held.add(asked.caller, places)

    def before(self, asked: Asked, room: _Room) -> int:
        """Places of what may begin before it."""
        waiting_batch = 0 if asked.batch else max(0, self.batch - self.batch_loading - room.worked_on)
        callers = self.held.by_caller
        return min(max(0, self.arrived - waiting_batch), callers.get(asked.caller, 0) * len(callers))


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
        """Whether it has refused one for want of places a moment ago, so that it is worth to look for others."""
        return self._clock() - self._refused_at < REFUSES_S

    def outstanding(self, model: str) -> int:
        """Places of the requests that were let in and have not ended."""
        state = self._models.get(model)  # once, since any thread may ask
        return 0 if state is None else state.held.total

    def load(self, model: str) -> ModelLoad:
        """What is held, and for how long the next request would wait."""
        room, state = self._room(model), self._models.get(model)
        held = state.held.total if state else 0
        ahead = (state.arrived if state else 0) + 1 - room.worked_on
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
        if asked.loads:
            state.load(asked, places)
        self._count(state, room, asked, places)
        ticket = Ticket(
            lambda answered, loading: self._leave(state, asked, places, answered=answered, loading=loading),
            (lambda: self._loaded(state, asked, places)) if asked.loads else None,
        )
        try:
            yield ticket
        finally:
            ticket.end()

    def _leave(self, state: _Model, asked: Asked, places: int, *, answered: bool, loading: bool) -> None:
        room = self._room(asked.model)
        if answered:
            state.pace.served(places, room.replicas)
        if loading:  # in one step with the rest: for a moment more would seem to wait, and the model to be busy
            state.load(asked, -places)
        self._count(state, room, asked, -places)
        if not state.held.total and not state.pace.is_known:  # perhaps there is no such model
            self._models.pop(asked.model, None)

    def _loaded(self, state: _Model, asked: Asked, places: int) -> None:
        state.load(asked, -places)
        self._note_pace(state, self._room(asked.model))

    def _count(self, state: _Model, room: _Room, asked: Asked, places: int) -> None:
        state.count(asked, places)
        self._note_pace(state, room)

    def _note_pace(self, state: _Model, room: _Room) -> None:
        state.pace.changed(busy=room.runs and state.arrived >= room.worked_on)

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
        if not state.held.total:
            return None  # nothing is before it, and one replica has room for it
        limit, percent = room.limit(asked), BATCH_CALLER_SHARE if asked.batch else CALLER_SHARE
        half = limit * LOADING_SHARE // 100
        # One request may load more than the half: it does not take the other half from those who bring their images.
        room_for_it = limit if asked.loads else limit + max(0, state.loading.total - half)
        wait_s = state.pace.seconds(state.before(asked, room) + places - room.worked_on, room.replicas)
        late = state.pace.is_known and wait_s > min(self._max_queue_s, asked.remaining_s)
        if late or not state.held.fit(asked.caller, places, room_for_it, percent):
            self._refused_at = self._clock()
            return _refusal(state, room, asked, places)
        if not asked.loads or not state.loading.total:  # the largest request may load where no other does
            return None
        return None if state.loading.fit(asked.caller, places, half, percent) else _slow_images(asked)


def _slow_images(asked: Asked) -> Overloaded:
    return Overloaded(
        f"The model {asked.model!r} already waits for the images of as many requests as it may; send the image within "
        f"the request, or try again in {UNKNOWN_RETRY_S} s.",
        code="overloaded",
        retry_after_s=UNKNOWN_RETRY_S,
    )


def _refusal(state: _Model, room: _Room, asked: Asked, places: int) -> Overloaded:
    seconds = state.pace.retry_after_s(state.arrived + places - room.worked_on, room.replicas)
    answers = "room for no more of a batch" if asked.batch else "as many requests as it can answer in time"
    return Overloaded(
        f"The model {asked.model!r} has {answers}; try again in {seconds} s.",
        code="overloaded",
        retry_after_s=seconds,
    )
