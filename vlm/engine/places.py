"""The engine's places: which requests it accepts, and which have to come back later. Pure Python.

A place is what one slot stands for: the slot, and its part of the rows of a step. Places are for sequences that run and
for those that wait to::

    capacity                  slots + max_waiting
    places of a generation    1, or more if its beams take more rows than a slot's part (see places_for)
    places of a request       those of its generations together: it gets all of them at once, or none

Blocks are not counted: how many a sequence takes shows only as it grows, and the scheduler makes it wait for them.

Places are given back as each generation ends. When a request is accepted, these hold::

    held + others <= capacity
    held <= share * (capacity - others)    unless this is the only generation that its caller has

where ``held`` are the places of the request's caller, and ``others`` those of all other callers. So each caller may
hold the same share of the places that the others leave: one alone 90 % of all, each of two 47 %, each of ten 10 %. A
caller that has something going never takes the last place, so that the next newcomer finds one.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Self, TypeVar

from vlm.engine.blocks import CachePlan
from vlm.errors import InvalidRequest, Overloaded
from vlm.generations import field_of, generations, places_for
from vlm.types import Request, Sampling

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request takes.

    Attributes:
        generations: Number of its generations.
        each: Number of places of each of them.
        param: The request's field that asks for several generations.
    """

    generations: int = 1
    each: int = 1
    param: str | None = None

    @classmethod
    def of(cls, request: Request, plan: CachePlan, defaults: Sampling) -> Self:
        """What ``request`` takes of an engine with this plan, whose model has these ``defaults``."""
        beams = request.sampling.over(defaults).num_beams or 1
        each = places_for(beams, plan.slots, plan.rows)
        return cls(generations(request), each, field_of(request))

    @property
    def places(self) -> int:
        """Number of places of all its generations."""
        return self.generations * self.each


@dataclass(frozen=True, eq=False, slots=True)
class Hold:
    """The places of one generation.

    Attributes:
        request: Whose generation it is: the same object for all generations of a request.
        caller: Who asked.
        owner: What answers it; see :meth:`Places.give_back_all`.
        places: Their number.
    """

    request: object
    caller: str | None
    owner: Hashable
    places: int


class Places:
    """The places of one engine, and who holds them. Any thread may use it, and each call takes constant time.

    A hold that is given back twice is given back once. What is given back while another call is at work is counted
    before that call returns.
    """

    def __init__(
        self, capacity: int, caller_share: int = 100, changed: Callable[[int], None] = lambda _used: None
    ) -> None:
        """No place is taken.

        Args:
            capacity: Number of places.
            caller_share: See :class:`~vlm.engine.config.EngineConfig`.
            changed: Is told how many places are held after some were taken or given back, in this order.
        """
        self.capacity = capacity
        self._changed = changed
        self._share = caller_share
        self._holds: set[Hold] = set()
        self._used = 0
        self._by_caller: Counter[str | None] = Counter()  # places, none of them 0
        self._by_request: Counter[object] = Counter()  # holds, none of them 0
        self._returned: deque[Hold] = deque()  # and not counted yet
        self._lock = threading.Lock()

    @property
    def for_one_caller(self) -> int:
        """Maximum number of places of one caller while there is no other."""
        return max(1, self._limit(others=0))

    @property
    def used(self) -> int:
        """Number of places that are taken."""
        return self._used

    @property
    def requests(self) -> int:
        """Number of requests that hold places."""
        return len(self._by_request)

    @property
    def owners(self) -> set[Hashable]:
        """What answers the requests that hold places."""
        try:
            with self._lock:
                return {one.owner for one in self._holds}
        finally:
            self._settle()

    def take(self, demand: Demand, caller: str | None, owner: Hashable) -> list[Hold]:
        """Take the places of a request.

        Returns:
            A hold for each of its generations.

        Raises:
            InvalidRequest: The request takes more places than it could ever get.
            Overloaded: They are not free now, or the caller holds its share already.
        """
        self._check_size(demand)
        request = object()
        holds = [Hold(request, caller, owner, demand.each) for _ in range(demand.generations)]
        try:
            with self._lock:
                self._count_returned()
                self._check_free(demand, caller)
                self._holds.update(holds)
                self._count(holds[0], len(holds))
                self._changed(self._used)
        finally:
            self._settle()
        return holds

    def give_back(self, holds: Iterable[Hold]) -> None:
        """Give places back; those that were given back before are ignored.

        Never waits for the lock: the garbage collector may close a generator in a thread that holds it. Whoever holds
        it counts them before it goes on.
        """
        self._returned.extend(holds)
        self._settle()

    def give_back_all(self, owner: Hashable) -> int:
        """Give back the places of all requests of this owner; returns the number of these requests."""
        with self._lock:
            self._count_returned()
            holds = [one for one in self._holds if one.owner is owner]
        self.give_back(holds)
        return len({one.request for one in holds})

    def _settle(self) -> None:
        """Count what was given back, unless another call is about to."""
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._count_returned()
            finally:
                self._lock.release()

    def _count_returned(self) -> None:
        """With the lock."""
        before = self._used
        while self._returned:
            hold = self._returned.popleft()
            if hold in self._holds:
                self._holds.remove(hold)
                self._count(hold, -1)
        if self._used != before:
            self._changed(self._used)

    def _count(self, hold: Hold, holds: int) -> None:
        self._used += holds * hold.places
        _add(self._by_caller, hold.caller, holds * hold.places)
        _add(self._by_request, hold.request, holds)

    def _limit(self, others: int) -> int:
        return (self.capacity - others) * self._share // 100

    def _check_size(self, demand: Demand) -> None:
        most = self.capacity if demand.generations == 1 else self.for_one_caller
        if demand.places > most:
            raise InvalidRequest(
                f"The request takes {demand.places} places, {demand.each} for each of its {demand.generations} "
                f"generations, one for each task, label or choice; at most {most} of the model's {self.capacity} are "
                f"given to one request. Send several requests{' or use fewer beams' if demand.each > 1 else ''}.",
                param=demand.param,
                code="invalid_value",
            )

    def _check_free(self, demand: Demand, caller: str | None) -> None:
        held = self._by_caller.get(caller, 0)
        others = self._used - held
        free = self.capacity - held - others
        if demand.places > free:
            raise Overloaded(
                f"The request takes {_named(demand.places)}, and {free} of the model's {self.capacity} are free; "
                "try again in a moment.",
                code="overloaded",
            )
        begins = not held and demand.generations == 1
        if not begins and held + demand.places > self._limit(others):
            raise Overloaded(
                f"The request takes {_named(demand.places)}, and you hold {held} of the {self._limit(others)} that one "
                "caller may hold now, so that others find a place; try again when one of your requests has been "
                "answered.",
                code="overloaded",
            )


def _add(counts: Counter[K], key: K, number: int) -> None:
    """Count, and keep no zeros."""
    counts[key] += number
    if not counts[key]:
        del counts[key]


def _named(places: int) -> str:
    return "1 place" if places == 1 else f"{places} places"
