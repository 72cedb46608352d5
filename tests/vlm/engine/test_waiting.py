"""Whose turn it is: one caller is served first come, first served; several are served fairly, and none starves."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.engine.beams import Continuation
from vlm.engine.blocks import BlockPool
from vlm.engine.scheduler import Batch, Scheduler
from vlm.engine.sequence import Sequence
from vlm.engine.waiting import BATCH_AGES_S
from vlm.generations import places_for
from vlm.types import Sampling

arrivals = count(1)


class Words:
    """Stands in for inputs and output."""

    crops = 1

    def __init__(self, prompt: int) -> None:
        self.prompt_ids = (0,) * prompt


def sequence(
    caller: str | None = None, max_tokens: int = 4, beams: int = 1, prompt: int = 1, *, batch: bool = False
) -> Sequence:
    stand_in: Any = Words(prompt)
    how = Sampling(max_tokens=max_tokens, num_beams=beams, length_penalty=1.0)
    return Sequence(stand_in, how, stand_in, caller=caller, batch=batch, arrived=next(arrivals))


def scheduler(rows: int = 4, blocks: int = 100, max_prefill: int = 8) -> Scheduler:
    return Scheduler(BlockPool(blocks + 1), rows, max_prefill)


def added(to: Scheduler, *sequences: Sequence) -> list[Sequence]:
    for one in sequences:
        to.add(one)
    return list(sequences)


def step(schedule: Scheduler, pick: random.Random | None = None) -> Batch:
    """A step in which everyone gets a token, and those that this ends leave."""
    pick = pick or random.Random(0)
    batch = schedule.schedule()
    for one in tuple(schedule.running):
        if one.num_beams == 1:
            one.generated.append(0)
        else:
            parents = [pick.randrange(one.num_beams) for _ in one.beams]
            schedule.branch(one, [Continuation(parent, 0, None, 0.0, ends=False) for parent in parents])
        if one.beams[0].budget == 0:
            schedule.remove(one)
    return batch


def starts(schedule: Scheduler, steps: int = 1) -> list[str | None]:
    """The callers of those that start, in order."""
    return [one.caller for _ in range(steps) for one in step(schedule).prefill]


def test_callers_take_turns_within_a_step() -> None:
    schedule = scheduler(rows=6)
    added(schedule, *(sequence("a") for _ in range(9)), sequence("b"), sequence("c"), sequence("b"))
    assert starts(schedule) == ["a", "b", "c", "a", "b", "a"]


def test_whoever_has_least_running_is_next_however_long_others_have_waited() -> None:
    schedule = scheduler(rows=3)
    running = added(schedule, *(sequence("a", 99) for _ in range(3)))
    assert starts(schedule) == ["a"] * 3
    added(schedule, *(sequence("a") for _ in range(50)), sequence("newcomer"))
    schedule.remove(running[0])
    assert starts(schedule) == ["newcomer"]


def test_beams_count_what_they_take() -> None:
    schedule = scheduler(rows=8)
    added(schedule, sequence("a", 99, beams=4), *(sequence("b", 99) for _ in range(3)))
    schedule.schedule()
    added(schedule, sequence("a"), sequence("b"), sequence("b"), sequence("a"))
    assert starts(schedule) == ["b"], "three places against four; then as many, and it is the turn of who waits longer"


def test_no_other_overtakes_a_search_whose_turn_it_is() -> None:
    schedule = scheduler(rows=4)
    first, *_ = added(schedule, sequence("a", 99), sequence("b", 99, beams=4), sequence("c"))
    assert [one.caller for one in schedule.schedule().prefill] == ["a"]
    assert not schedule.schedule().prefill
    schedule.remove(first)
    assert [one.caller for one in schedule.schedule().prefill] == ["b"]


def test_a_preempted_sequence_goes_on_before_any_other_starts() -> None:
    schedule = scheduler(blocks=2)
    old, new = added(schedule, sequence("a", 99, prompt=16), sequence("a", 99, prompt=16))
    step(schedule)
    step(schedule)
    assert new.preemptions == 1
    added(schedule, sequence("b"))
    assert next(iter(schedule.waiting)) is new
    assert not schedule.schedule().prefill
    schedule.remove(old)
    assert schedule.schedule().prefill[0] is new


def test_those_that_leave_are_forgotten_wherever_they_are() -> None:
    schedule = scheduler(rows=2)
    everyone = added(schedule, *(sequence(caller) for caller in "abcab"))
    schedule.schedule()
    assert (len(schedule.waiting), bool(schedule.waiting)) == (3, True)
    for one in (*everyone, *everyone):
        schedule.remove(one)
    assert (len(schedule.waiting), bool(schedule.waiting)) == (0, False)
    assert not schedule.waiting._queues
    assert not schedule.waiting._running


class FirstCome:
    """First come, first served, whoever it is: the order that one caller must find."""

    def __init__(self) -> None:
        self._queue: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._queue)

    def add(self, one: Sequence) -> None:
        self._queue.append(one)

    def add_preempted(self, one: Sequence) -> None:
        self._queue.appendleft(one)

    def discard(self, one: Sequence) -> None:
        if one in self._queue:
            self._queue.remove(one)

    def next(self) -> Sequence | None:
        return self._queue[0] if self._queue else None

    def startable(self, free: int) -> int:
        return min(free, len(self._queue))

    def started(self, one: Sequence) -> None:
        assert self._queue.popleft() is one

    def stopped(self, one: Sequence) -> None:
        pass


sizes = st.tuples(st.integers(1, 30), st.integers(1, 3), st.integers(1, 40))
events = st.lists(st.one_of(st.just("step"), sizes, st.integers(0, 30)), max_size=60)


def lives(schedule: Scheduler, happenings: list[Any], caller: str | None) -> list[object]:
    """What one caller's sequences go through: every batch of their lives."""
    everyone: list[Sequence] = []
    batches: list[object] = []
    for happens in (*happenings, *["step"] * 400):
        if happens == "step":
            batches.append(described(step(schedule), everyone))
        elif isinstance(happens, tuple):
            everyone += added(schedule, sequence(caller, *happens))
        elif happens < len(everyone):
            schedule.remove(everyone[happens])
    return [*batches, [everyone.index(one) for one in schedule.waiting]]


def described(batch: Batch, everyone: list[Sequence]) -> object:
    rows = [everyone.index(beam.sequence) for beam in batch.decode.beams]
    started = [everyone.index(one) for one in batch.prefill]
    return (
        rows,
        batch.decode.sources,
        batch.decode.slots,
        batch.decode.moves,
        batch.decode.copies,
        started,
        batch.copies,
    )


@given(events, st.integers(10, 30), st.integers(3, 6), st.sampled_from([None, "someone"]))
def test_one_caller_finds_the_batches_of_first_come_first_served(
    happenings: list[Any], blocks: int, rows: int, caller: str | None
) -> None:
    fair, first_come = (Scheduler(BlockPool(blocks + 1), rows, 2) for _ in range(2))
    substitute: Any = FirstCome()
    first_come.waiting = substitute
    assert lives(fair, happenings, caller) == lives(first_come, happenings, caller)


@given(
    st.lists(st.one_of(st.just("step"), st.tuples(st.sampled_from("abcd"), sizes), st.integers(0, 60)), max_size=80),
    st.integers(10, 30),
    st.integers(3, 6),
)
def test_each_start_is_the_turn_of_its_caller_and_all_are_served(happenings: list[Any], blocks: int, rows: int) -> None:
    schedule = Scheduler(BlockPool(blocks + 1), rows, 2)
    alive: list[Sequence] = []  # in the order of their arrival
    begun: set[Sequence] = set()
    for happens in happenings:
        if happens == "step":
            checked_step(schedule, alive, begun)
        elif isinstance(happens, tuple):
            alive += added(schedule, sequence(happens[0], *happens[1]))
        elif happens < len(alive):
            schedule.remove(alive.pop(happens))
    for _ in range((1 + len(alive)) * sum(one.sampling.max_tokens or 0 for one in alive)):
        checked_step(schedule, alive, begun)
    assert not alive, "everyone is served in the end"
    assert schedule.pool.used == 0
    assert not schedule.waiting._running
    assert not schedule.waiting._queues


def checked_step(schedule: Scheduler, alive: list[Sequence], begun: set[Sequence]) -> None:
    waiting = [one for one in alive if one not in begun]
    batch = step(schedule)
    running: Counter[str | None] = Counter()
    for one in {beam.sequence: None for beam in batch.decode.beams}:
        running[one.caller] += places_for(one.num_beams, schedule.slots, schedule.rows)
    for one in batch.prefill:
        if one not in begun:
            assert one is next(other for other in waiting if other.caller == one.caller), "in the order of arrival"
            assert running[one.caller] == min(running[other.caller] for other in waiting)
            waiting.remove(one)
            begun.add(one)
        running[one.caller] += places_for(one.num_beams, schedule.slots, schedule.rows)
    alive[:] = [one for one in alive if one.slot is not None or one in schedule.waiting]


@pytest.mark.parametrize("crowd", [1, 3])
def test_a_caller_with_work_running_does_not_starve_among_endless_newcomers(crowd: int) -> None:
    """Each of them comes with nothing running, and so before the caller's next one, until its last one has ended."""
    schedule = scheduler(rows=4)
    mine = added(schedule, *(sequence("me", 12) for _ in range(8)))
    for number in range(200):
        added(schedule, *(sequence(f"{number}.{index}", 3) for index in range(crowd)))
        step(schedule)
        mine = [one for one in mine if one.slot is not None or one in schedule.waiting]
        if not mine:
            return
    raise AssertionError(f"{len(mine)} have not been served")


# Batches


class Clock:
    """Stands still at the time of the last arrival until a test moves it."""

    def __init__(self) -> None:
        self.now = float(next(arrivals))

    def __call__(self) -> float:
        return self.now


def test_a_batch_starts_after_all_others() -> None:
    schedule = Scheduler(BlockPool(101), 2, 8, clock=Clock())
    added(schedule, *(sequence("batch", 1, batch=True) for _ in range(2)), *(sequence("a", 1) for _ in range(3)))
    assert starts(schedule, 3) == ["a", "a", "a", "batch", "batch"]


def test_the_batches_of_callers_take_turns() -> None:
    schedule = Scheduler(BlockPool(101), 4, 8, clock=Clock())
    added(
        schedule, *(sequence("a", 9, batch=True) for _ in range(4)), *(sequence("b", 9, batch=True) for _ in range(4))
    )
    assert starts(schedule) == ["a", "b", "a", "b"]


def test_a_caller_with_a_batch_that_runs_waits_no_longer_for_its_other_requests() -> None:
    schedule = Scheduler(BlockPool(101), 4, 8, clock=Clock())
    added(schedule, *(sequence("a", 9, batch=True) for _ in range(3)))
    assert starts(schedule) == ["a"] * 3
    added(schedule, sequence("a"), sequence("b"))
    assert starts(schedule) == ["a"]


def test_a_batch_that_has_waited_long_enough_takes_its_turn() -> None:
    clock = Clock()
    schedule = Scheduler(BlockPool(101), 1, 8, clock=clock)
    old = sequence("batch", 1, batch=True)
    added(schedule, old, *(sequence("a", 1) for _ in range(4)))
    assert starts(schedule) == ["a"]
    clock.now = old.arrived + BATCH_AGES_S
    assert starts(schedule, 2) == ["batch", "a"]


def test_a_batch_does_not_starve_among_endless_others() -> None:
    clock = Clock()
    schedule = Scheduler(BlockPool(101), 2, 8, clock=clock)
    mine = added(schedule, *(sequence("batch", 3, batch=True) for _ in range(4)))
    for number in range(200):
        added(schedule, *(sequence(f"{number}.{index}", 3) for index in range(3)))
        clock.now += 1.0
        step(schedule)
        mine = [one for one in mine if one.slot is not None or one in schedule.waiting]
        if not mine:
            return
    raise AssertionError(f"{len(mine)} have not been served")


def is_there(schedule: Scheduler, *sequences: Sequence) -> bool:
    return any(one.slot is not None or one in schedule.waiting for one in sequences)


def test_a_batch_is_preempted_first_and_goes_on_after_those_that_are_not() -> None:
    """There are blocks for the beginning of all three, and not for what they grow to."""
    clock = Clock()
    schedule = Scheduler(BlockPool(4), 3, 8, clock=clock)
    old = sequence("batch", 20, prompt=16, batch=True)
    new = [sequence("a", 6, prompt=12), sequence("b", 6, prompt=12)]
    added(schedule, old)
    step(schedule)
    added(schedule, *new)
    while is_there(schedule, *new):
        step(schedule)
    assert [one.preemptions > 0 for one in (old, *new)] == [True, False, False]
    while is_there(schedule, old):
        step(schedule)
    assert len(old.generated) == 20


@given(
    st.lists(
        st.one_of(st.just("step"), st.tuples(st.sampled_from("abc"), sizes, st.booleans()), st.integers(0, 40)),
        max_size=60,
    ),
    st.integers(10, 30),
    st.sampled_from((0, 25, 60, 99)),
)
def test_all_are_served_whatever_is_of_a_batch(happenings: list[Any], blocks: int, reserve: int) -> None:
    clock = Clock()
    schedule = Scheduler(BlockPool(blocks + 1), 3, 2, clock=clock, slot_reserve=reserve)
    alive: list[Sequence] = []

    def stepped() -> None:
        clock.now += 0.5
        step(schedule)
        alive[:] = [one for one in alive if one.slot is not None or one in schedule.waiting]

    for happens in happenings:
        if happens == "step":
            stepped()
        elif isinstance(happens, tuple):
            clock.now = max(clock.now, float(next(arrivals)))
            alive += added(schedule, sequence(happens[0], *happens[1], batch=happens[2]))
        elif happens < len(alive):
            schedule.remove(alive.pop(happens))
    for _ in range((1 + len(alive)) * sum(one.sampling.max_tokens or 0 for one in alive)):
        stepped()
    assert not alive, "everyone is served in the end"
    assert schedule.pool.used == 0
