"""Places: requests as units, a share for each caller, and nothing that is not given back."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vlm.engine.blocks import MAX_BEAMS, CachePlan
from vlm.engine.places import Demand, Hold, Places
from vlm.errors import InvalidRequest, Overloaded, VlmError
from vlm.generations import places_for
from vlm.types import Request, Sampling, Task

ONE = Demand()
LOOP = "an event loop"


def fill(places: Places, caller: str, demand: Demand = ONE) -> list[list[Hold]]:
    """What a caller gets that asks until it is refused."""
    taken: list[list[Hold]] = []
    while True:
        try:
            taken.append(places.take(demand, caller, LOOP))
        except Overloaded:
            return taken


@pytest.mark.parametrize(
    ("beams", "slots", "rows", "places"),
    [(1, 64, 64, 1), (8, 64, 64, 8), (1, 64, 192, 1), (3, 64, 192, 1), (4, 64, 192, 2), (8, 64, 192, 3),
     (8, 1, 8, 1), (2, 4, 8, 1), (3, 4, 8, 2)],
)  # fmt: skip
def test_a_generation_takes_its_slot_or_its_part_of_the_rows(beams: int, slots: int, rows: int, places: int) -> None:
    assert places_for(beams, slots, rows) == places


@given(st.integers(1, MAX_BEAMS), st.integers(1, 300), st.integers(1, MAX_BEAMS))
def test_a_single_generation_fits_into_any_engine(beams: int, slots: int, default: int) -> None:
    plan = CachePlan(slots, 100, 0, default)
    taken = places_for(beams, plan.slots, plan.rows)
    assert 1 <= taken <= slots
    Places(slots, 1).take(Demand(each=taken), None, LOOP)


@pytest.mark.parametrize(
    ("request_", "demand"),
    [
        (Request(b""), Demand(1, 1, "task.labels")),
        (Request(b"", sampling=Sampling(num_beams=1)), Demand(1, 1, "task.labels")),
        (Request(b"", sampling=Sampling(temperature=1)), Demand(1, 1, "task.labels")),
        (Request(b"", sampling=Sampling(num_beams=8)), Demand(1, 3, "task.labels")),
        (Request(b"", task=Task("detect", labels=("a", "b"))), Demand(2, 1, "task.labels")),
        (
            Request(b"", tasks=(Task("point", labels=("a", "b")), Task("caption")), sampling=Sampling(num_beams=4)),
            Demand(3, 2, "tasks"),
        ),
    ],
)
def test_a_request_takes_the_places_of_all_its_generations(request_: Request, demand: Demand) -> None:
    """Of a model that searches with three beams unless it is told otherwise."""
    assert Demand.of(request_, CachePlan(64, 100, 0, 3), Sampling(num_beams=3)) == demand


def test_one_caller_leaves_places_and_each_newcomer_gets_its_share_of_these() -> None:
    places = Places(80, 90)
    assert [len(fill(places, caller)) for caller in "abcd"] == [72, 7, 1, 0]
    assert places.used == 80


def test_callers_that_ask_for_all_they_can_get_end_up_with_the_same() -> None:
    places, pick = Places(320, 90), random.Random(0)
    holds = fill(places, "a")
    for _ in range(5000):
        for caller in pick.sample("abcd", 4):
            holds += fill(places, caller)
        places.give_back(holds.pop(pick.randrange(len(holds))))
    shares = Counter(one.caller for hold in holds for one in hold)
    assert max(shares.values()) - min(shares.values()) <= 8, shares
    assert places.take(ONE, "newcomer", LOOP)


def test_a_refusal_says_which_limit_it_was() -> None:
    places = Places(10, 90)
    places.take(Demand(2, 4), "a", LOOP)
    with pytest.raises(Overloaded, match="takes 2 places, and you hold 8 of the 9 that one caller may hold now") as own:
        places.take(Demand(1, 2), "a", LOOP)
    with pytest.raises(Overloaded, match="takes 3 places, and 2 of the model's 10 are free") as full:
        places.take(Demand(1, 3), "b", LOOP)
    assert own.value.code == full.value.code == "overloaded"


def test_a_request_that_no_caller_ever_gets_is_invalid_and_says_how_many_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"takes 10 places, 2 for each of its 5 generations.*at most 9 ") as caught:
        Places(10, 90).take(Demand(5, 2, "tasks"), "a", LOOP)
    assert (caught.value.param, caught.value.code) == ("tasks", "invalid_value")
    assert caught.value.message.endswith("Send several requests or use fewer beams.")
    with pytest.raises(InvalidRequest, match=r"Send several requests\.$"):
        Places(10, 90).take(Demand(10, 1, "tasks"), "a", LOOP)


def test_nobody_is_named_in_a_refusal() -> None:
    places = Places(1)
    places.take(ONE, "secret", LOOP)
    with pytest.raises(Overloaded) as caught:
        places.take(ONE, "secret", LOOP)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Request(b"", caller="secret"))


def test_many_threads_never_take_more_than_there_are() -> None:
    places, seen = Places(7, 90), []

    def worker(seed: int) -> None:
        pick = random.Random(seed)
        for _ in range(300):
            try:
                holds = places.take(Demand(pick.randint(1, 3)), pick.choice("abc"), seed)
            except Overloaded:
                continue
            seen.append(places.used)
            places.give_back(holds)
            places.give_back(holds)

    threads = [threading.Thread(target=worker, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(seen) <= 7
    assert (places.used, places.requests) == (0, 0)


def test_what_is_told_last_is_true() -> None:
    """A generator may be closed, and give its places back, in the middle of another call."""
    told: list[int] = []
    closing: list[list[Hold]] = []

    def changed(used: int) -> None:
        while closing:
            places.give_back(closing.pop())
        told.append(used)

    places = Places(8, changed=changed)
    closing.append(places.take(Demand(2, 2), "a", LOOP))
    places.take(ONE, "b", LOOP)
    assert told == [4, 5, 1]
    assert (places.used, places.requests) == (1, 1)


def test_no_call_looks_at_every_hold() -> None:
    places = Places(2000)
    taken = fill(places, "a")
    looked = 0

    class Counted(set[Hold]):
        def __iter__(self) -> Any:
            nonlocal looked
            looked += 1
            return super().__iter__()

    places._holds = Counted(places._holds)
    places.give_back(taken.pop())
    places.take(ONE, "b", LOOP)
    assert (places.used, places.requests, looked) == (2000, 2000, 0)


class Callers(RuleBasedStateMachine):
    """Callers come, ask for more than they get, leave, and lose their event loop, at any moment."""

    @initialize(capacity=st.integers(1, 40), share=st.integers(1, 100))
    def start(self, capacity: int, share: int) -> None:
        self.capacity, self.share = capacity, share
        self.places = Places(capacity, share)
        self.held: list[tuple[str, str, list[Hold]]] = []  # caller, owner, what is not given back

    @rule(caller=st.sampled_from("abc"), owner=st.sampled_from(["one", "two"]),
          generations=st.sampled_from([1, 1, 1, 2, 5, 20]), each=st.integers(1, 4))  # fmt: skip
    def ask(self, caller: str, owner: str, generations: int, each: int) -> None:
        demand = Demand(generations, each)
        before, free = self.of(caller), self.capacity - self.used()
        error, holds = self.attempt(self.places, demand, caller, owner)
        assert isinstance(error, InvalidRequest) == isinstance(
            self.attempt(Places(self.capacity, self.share), demand, caller, owner)[0], VlmError
        ), "only what an empty engine refuses is refused for good"
        if holds:
            assert [one.places for one in holds] == [each] * generations, "all of it"
            self.held.append((caller, owner, holds))
            self.check_share(caller, alone=not before and generations == 1)
        elif isinstance(error, Overloaded):
            assert before or generations > 1 or free < each, "a newcomer is refused only where there is no room"
        assert self.places.used == self.used(), "a refusal changes nothing"

    def attempt(self, places: Places, demand: Demand, caller: str, owner: str) -> tuple[VlmError | None, list[Hold]]:
        try:
            return None, places.take(demand, caller, owner)
        except VlmError as error:
            return error, []

    def check_share(self, caller: str, *, alone: bool) -> None:
        others = self.used() - self.of(caller)
        assert alone or 100 * self.of(caller) <= self.share * (self.capacity - others)
        assert alone or self.share == 100 or self.used() < self.capacity, "the last place is for a newcomer"

    @precondition(lambda self: self.held)
    @rule(pick=st.randoms(use_true_random=False))
    def end_a_generation(self, pick: Any) -> None:
        _, _, holds = pick.choice(self.held)
        ended = [holds.pop()]
        for _ in range(2):
            self.places.give_back(ended)
        self.held = [one for one in self.held if one[2]]

    @precondition(lambda self: self.held)
    @rule(pick=st.randoms(use_true_random=False))
    def end_a_request(self, pick: Any) -> None:
        ended = self.held.pop(pick.randrange(len(self.held)))
        for _ in range(2):
            self.places.give_back(ended[2])

    @rule(owner=st.sampled_from(["one", "two"]))
    def close_a_loop(self, owner: str) -> None:
        gone = [one for one in self.held if one[1] == owner]
        self.held = [one for one in self.held if one[1] != owner]
        assert self.places.give_back_all(owner) == len(gone)
        for _, _, holds in gone:  # as its generators do if the garbage collector closes them later
            self.places.give_back(holds)

    @invariant()
    def holds(self) -> None:
        assert self.places.used == self.used() <= self.capacity
        assert self.places.requests == len(self.held)

    def used(self) -> int:
        return sum(one.places for _, _, holds in self.held for one in holds)

    def of(self, caller: str) -> int:
        return sum(one.places for asked, _, holds in self.held for one in holds if asked == caller)

    def teardown(self) -> None:
        for _, _, holds in getattr(self, "held", ()):
            self.places.give_back(holds)
        assert not getattr(self, "held", ()) or not self.places.used


TestCallers = Callers.TestCase
TestCallers.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
