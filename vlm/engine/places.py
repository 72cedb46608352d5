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
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Self

from vlm.engine import compose
from vlm.engine.blocks import CachePlan
from vlm.errors import InvalidRequest, Overloaded
from vlm.types import Request, Sampling


def places_for(beams: int, slots: int, rows: int) -> int:
    """Number of places that a generation with so many beams takes in an engine of so many slots and rows.

    Where rows are planned for three beams a slot, a search with eight takes three places.
    """
    return max(1, -(-beams * slots // rows))


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
        return cls(compose.generations(request), each, compose.field_of(request))

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
    """The places of one engine, and who holds them. Any thread may use it.

    All that it knows is the set of holds, so a hold that is given back twice is given back once.
    """

    def __init__(
        self, capacity: int, caller_share: int = 100, changed: Callable[[int], None] = lambda _used: None
    ) -> None:
        """No place is taken.

        Args:
            capacity: Number of places.
            caller_share: See :class:`~vlm.engine.config.EngineConfig`.
            changed: Is told how many places are held after some were taken or given back.
        """
        self.capacity = capacity
        self._changed = changed
        self._share = caller_share
        self._holds: set[Hold] = set()
        self._lock = threading.Lock()  # for taking; giving back needs none

    @property
    def for_one_caller(self) -> int:
        """Maximum number of places of one caller while there is no other."""
        return max(1, self._limit(others=0))

    @property
    def used(self) -> int:
        """Number of places that are taken."""
        return sum(one.places for one in tuple(self._holds))

    @property
    def requests(self) -> int:
        """Number of requests that hold places."""
        return len({id(one.request) for one in tuple(self._holds)})

    @property
    def owners(self) -> set[Hashable]:
        """What answers the requests that hold places."""
        return {one.owner for one in tuple(self._holds)}

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
        with self._lock:
            self._check_free(demand, caller)
            self._holds.update(holds)
        self._changed(self.used)
        return holds

    def give_back(self, holds: Iterable[Hold]) -> None:
        """Give places back; those that were given back before are ignored.

        Takes no lock: the garbage collector may close a generator in a thread that holds it.
        """
        self._holds.difference_update(holds)
        self._changed(self.used)

    def give_back_all(self, owner: Hashable) -> int:
        """Give back the places of all requests of this owner; returns the number of these requests."""
        holds = [one for one in tuple(self._holds) if one.owner is owner]
        self.give_back(holds)
        return len({id(one.request) for one in holds})

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
        holds = tuple(self._holds)
        held = sum(one.places for one in holds if one.caller == caller)
        others = sum(one.places for one in holds) - held
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


def _named(places: int) -> str:
    return "1 place" if places == 1 else f"{places} places"
