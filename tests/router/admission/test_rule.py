"""Which requests are let in."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from router.admission.rule import Admission, Asked, retry_after
from vlm.errors import Overloaded


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.replicas = 1
        self.rule = Admission(4, 10.0, lambda _model: self.replicas, lambda: self.now)
        self.held = ExitStack()

    def ask(self, caller: str = "a", places: int = 1, remaining_s: float = 100.0) -> None:
        self.held.enter_context(self.rule.admitted(Asked("m", caller, places, remaining_s)))


@pytest.fixture
def world() -> World:
    return World()


def test_a_caller_leaves_room_for_another(world: World) -> None:
    for _ in range(7):
        world.ask("flood")
    with pytest.raises(Overloaded):
        world.ask("flood")
    world.ask("polite")
    with pytest.raises(Overloaded):
        world.ask("late")
    world.held.close()
    assert world.rule.outstanding("m") == 0


def test_a_lost_replica_counts_at_once(world: World) -> None:
    world.replicas = 2
    for _ in range(8):
        world.ask()
    world.replicas = 1
    with pytest.raises(Overloaded):
        world.ask("b")


def test_what_would_wait_beyond_its_deadline_is_refused(world: World) -> None:
    for _ in range(5):
        world.ask()
    for _ in range(20):  # one a second
        world.now += 1.0
        with world.rule.admitted(Asked("m", "b", 1, 100.0)) as ticket:
            ticket.answered = True
    with pytest.raises(Overloaded) as refused:
        world.ask(remaining_s=1.0)
    assert refused.value.retry_after_s == 2
    world.ask(remaining_s=3.0)


def test_seconds_to_wait_are_whole_and_bounded() -> None:
    assert [retry_after(seconds) for seconds in (0.0, 1.2, 1000.0)] == [1, 2, 60]
