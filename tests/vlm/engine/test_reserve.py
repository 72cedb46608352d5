"""What is kept free for those who ask next."""

from __future__ import annotations

import pytest

from tests.vlm.engine.test_waiting import Clock, added, sequence, starts, step
from vlm.engine.blocks import BlockPool
from vlm.engine.reserve import LATELY_S, Reserve
from vlm.engine.scheduler import Scheduler


class World:
    """Eight slots, of which a quarter is reserved. Answers take as long as the test wants."""

    def __init__(self, percent: int = 25) -> None:
        self.clock = Clock()
        self.schedule = Scheduler(BlockPool(1001), 8, 8, clock=self.clock, slot_reserve=percent)

    def ask(self, caller: str, number: int = 1, tokens: int = 100, *, batch: bool = False) -> None:
        added(self.schedule, *(sequence(caller, tokens, batch=batch) for _ in range(number)))

    def starts(self) -> str:
        return "".join(str(caller) for caller in starts(self.schedule))


@pytest.fixture
def world() -> World:
    return World()


def test_one_caller_alone_has_all_slots(world: World) -> None:
    world.ask("f", 20)
    assert world.starts() == "f" * 8


def test_one_who_floods_leaves_slots_to_another_who_finds_them_at_once(world: World) -> None:
    world.ask("p", tokens=1)
    assert world.starts() == "p"
    world.ask("f", 20)
    assert world.starts() == "f" * 6
    world.ask("p", 2)
    assert world.starts() == "pp"
    world.ask("p")
    assert world.starts() == "", "all slots are taken"


def test_the_reserve_is_given_up_when_nobody_else_has_asked_for_a_while(world: World) -> None:
    world.ask("p", tokens=1)
    world.starts()
    world.ask("f", 20)
    assert world.starts() == "f" * 6
    world.clock.now += LATELY_S
    assert world.starts() == "ff"


def test_who_runs_is_there_however_long_ago_it_asked(world: World) -> None:
    world.ask("p")
    world.starts()
    world.clock.now += 10 * LATELY_S
    world.ask("f", 20)
    assert world.starts() == "f" * 6


def test_all_callers_together_fill_the_slots(world: World) -> None:
    world.ask("f", 20)
    world.ask("g", 20)
    assert world.starts() == "fgfgfgfg"


def test_batches_of_several_callers_leave_slots_to_what_somebody_waits_for(world: World) -> None:
    world.ask("p", tokens=1)
    world.starts()
    world.ask("a", 5, batch=True)
    world.ask("b", 5, batch=True)
    assert world.starts() == "ababab"
    world.ask("a", 2)
    assert world.starts() == "aa"


def test_batches_have_all_slots_where_nothing_else_is_asked_for(world: World) -> None:
    world.ask("a", 5, batch=True)
    world.ask("b", 5, batch=True)
    assert world.starts() == "abababab"


def test_a_single_slot_is_no_reserve() -> None:
    reserve = Reserve(1, 99, Clock())
    reserve.asked("a", batch=False)
    reserve.asked("b", batch=True)
    assert (reserve.left("a", batch=False), reserve.left("b", batch=True)) == (1, 1)


def test_without_a_reserve_there_is_none() -> None:
    world = World(0)
    world.ask("p", tokens=1)
    world.starts()
    world.ask("f", 20)
    assert world.starts() == "f" * 8


def test_those_that_are_held_back_are_not_waited_for_by_those_that_may_start() -> None:
    """Sequences gather before they start; what may not start is no reason to wait for more."""
    schedule = Scheduler(BlockPool(1001), 32, 8, clock=Clock(), slot_reserve=25)
    added(schedule, sequence("p", 1))
    step(schedule)
    added(schedule, *(sequence("f", 500) for _ in range(40)))
    while len(schedule.running) < 24:
        step(schedule)
    batches = [step(schedule) for _ in range(10)]
    assert not any(batch.prefill for batch in batches)
    added(schedule, *(sequence("p", 500) for _ in range(4)))
    assert [one.caller for one in step(schedule).prefill] == ["p"] * 4
