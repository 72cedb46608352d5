"""Which requests are let in."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from router.admission.capacity import UNKNOWN_SLOTS, Capacity
from router.admission.rule import LOST_S, Admission, Asked, Ticket
from vlm.errors import Overloaded
from vlm.pace import UNKNOWN_RETRY_S


class World:
    def __init__(self, slots: int = 4, rows: int = 4, *, stated: int | None = None) -> None:
        self.now = 100.0
        self.capacity = Capacity(1, 1, slots, rows)
        self.rule = Admission(lambda _model: self.capacity, 10.0, stated, lambda: self.now)
        self.held = ExitStack()

    def ask(
        self,
        caller: str = "a",
        generations: int = 1,
        remaining_s: float = 100.0,
        beams: int | None = None,
        *,
        batch: bool = False,
        loads: bool = False,
    ) -> Ticket:
        asked = Asked("m", caller, remaining_s, generations, beams, batch, loads)
        return self.held.enter_context(self.rule.admitted(asked))

    def fill(self, caller: str = "a", *, batch: bool = False) -> int:
        """How many requests are let in until one is refused."""
        for number in range(1000):
            try:
                self.ask(caller, batch=batch)
            except Overloaded:
                return number
        raise AssertionError("nothing is refused")

    def answer_one_a_second(self) -> None:
        for _ in range(20):
            self.now += 1.0
            with self.rule.admitted(Asked("m", "b", 100.0)) as ticket:
                ticket.end(answered=True)

    @property
    def outstanding(self) -> int:
        return self.rule.outstanding("m")


@pytest.fixture
def world() -> World:
    return World()


def test_a_caller_leaves_room_for_another(world: World) -> None:
    assert world.fill("flood") == 6
    world.ask("polite")
    world.ask("another")
    with pytest.raises(Overloaded):
        world.ask("late")
    world.held.close()
    assert world.outstanding == 0


def test_a_lost_replica_leaves_its_room_until_another_has_started(world: World) -> None:
    world.capacity = Capacity(2, 1, 4, 4)
    for _ in range(8):
        world.ask()
    world.capacity = Capacity(1, 1, 4, 4)
    world.ask("b")
    world.now += LOST_S
    with pytest.raises(Overloaded):
        world.ask("c")


def test_what_would_wait_too_long_for_the_replicas_that_are_left_is_refused_at_once(world: World) -> None:
    world.capacity = Capacity(2, 1, 4, 4)
    for _ in range(8):
        world.ask()
    world.answer_one_a_second()
    world.capacity = Capacity(1, 1, 4, 4)
    with pytest.raises(Overloaded):
        world.ask(remaining_s=1.0)


def test_names_of_models_that_are_not_served_are_not_kept(world: World) -> None:
    world.capacity = Capacity(0, 1, 4, 4)
    for number in range(100):
        with world.rule.admitted(Asked(f"m{number}", "a", 100.0)):
            pass
    assert not world.rule._expected  # what would grow


@pytest.mark.parametrize(("routers", "let_in"), [(1, 51), (2, 25), (3, 17), (8, 6)])
def test_routers_share_what_the_replicas_work_on(routers: int, let_in: int) -> None:
    """Two parts of 32 slots, of which one caller leaves a fifth."""
    world = World()
    world.capacity = Capacity(8, routers, 4, 4)
    assert world.fill() == let_in


def test_the_slots_are_those_of_the_engine_until_others_are_stated() -> None:
    assert World(slots=64, rows=64).fill() == 128 * 8 // 10
    assert World(slots=64, rows=64, stated=10).fill() == 16
    assert World(slots=0, rows=0).fill() == 2 * UNKNOWN_SLOTS * 8 // 10


def test_beams_take_the_places_that_they_take_in_the_engine() -> None:
    world = World(slots=64, rows=192)
    for beams, places in ((None, 1), (1, 1), (3, 1), (4, 2), (8, 3)):
        before = world.outstanding
        world.ask(beams=beams)
        assert world.outstanding - before == places


def test_a_request_takes_at_most_what_one_replica_works_on(world: World) -> None:
    """So that the largest is let in where there is nothing before it, and not more with it."""
    world.ask(generations=64)
    assert world.outstanding == 4
    world.ask("b", generations=4)
    assert world.outstanding == 8
    with pytest.raises(Overloaded):
        world.ask("c")


def test_the_largest_request_is_let_in_where_many_routers_share_one_replica(world: World) -> None:
    world.capacity = Capacity(1, 8, 4, 4)
    world.ask(generations=64)
    with pytest.raises(Overloaded):
        world.ask("b")


def test_the_time_in_which_no_replica_ran_is_not_taken_for_the_pace_of_the_next(world: World) -> None:
    for _ in range(5):
        world.ask()
    world.answer_one_a_second()
    world.held.close()
    world.capacity = Capacity(0, 1, 4, 4)
    waiting = [world.ask(caller) for caller in ("a", "b", "c", "d", "e", "f")]
    world.now += 60.0
    world.capacity = Capacity(1, 1, 4, 4)
    waiting.pop().end(answered=True)
    for _ in range(3):
        world.now += 0.5
        waiting.pop().end(answered=True)
        world.ask()
    load = world.rule.load("m")
    assert load.queue_s is not None
    assert load.queue_s < 3.0


def test_what_would_wait_beyond_its_deadline_is_refused(world: World) -> None:
    for _ in range(5):
        world.ask()
    world.answer_one_a_second()
    with pytest.raises(Overloaded) as refused:
        world.ask(remaining_s=1.0)
    assert refused.value.retry_after_s == 2
    world.ask(remaining_s=3.0)


def test_without_a_pace_a_client_is_told_to_come_back_soon(world: World) -> None:
    world.fill()
    world.now += 645.0
    with pytest.raises(Overloaded) as refused:
        world.ask()
    assert (refused.value.retry_after_s, refused.value.code) == (UNKNOWN_RETRY_S, "overloaded")


def test_an_answer_takes_no_place_any_more_while_it_is_read(world: World) -> None:
    ticket = world.ask()
    ticket.end(answered=True)
    assert world.outstanding == 0
    world.held.close()
    assert world.outstanding == 0


def test_a_batch_that_ends_together_counts_as_a_whole(world: World) -> None:
    tickets = [world.ask(caller) for caller in "aaaaabb"]
    world.now += 2.0
    for ticket in tickets:
        ticket.end(answered=True)
        world.now += 0.01
    tickets = [world.ask() for _ in range(6)]
    with pytest.raises(Overloaded) as refused:
        world.ask(generations=4, remaining_s=0.5)
    assert refused.value.retry_after_s == 2  # 6 places over 3.5 a second


def test_a_model_that_nobody_answers_for_is_forgotten(world: World) -> None:
    with world.rule.admitted(Asked("nothing", "a", 100.0)):
        pass
    assert not world.rule._models


def test_a_batch_leaves_room_to_all_others() -> None:
    world = World(slots=50, rows=50)
    batch = world.fill("batch", batch=True) + world.fill("another batch", batch=True)
    assert batch in (59, 60)  # a caller leaves the last place to a newcomer
    with pytest.raises(Overloaded, match="room for no more of a batch"):
        world.ask("batch", batch=True)
    assert world.fill("a") + world.fill("b") + world.fill("c") in (39, 40)


def test_a_batch_is_refused_while_others_take_the_room() -> None:
    world = World(slots=50, rows=50)
    for _ in range(60):
        world.ask("a")
    with pytest.raises(Overloaded):
        world.ask("batch", batch=True)
    world.held.close()
    assert world.ask("batch", batch=True)
    assert world.rule._models["m"].batch == 1
    world.held.close()
    assert world.outstanding == 0


def test_what_waits_of_a_batch_is_not_before_the_others() -> None:
    world = World(slots=40, rows=40)
    for number in range(47):
        world.ask(f"caller {number % 8}", batch=True)
    for _ in range(2):
        world.answer_one_a_second()
    world.ask("caller 0", remaining_s=2.0)  # 47 are held, and one of the 40 that have begun is to end


def test_requests_whose_images_have_yet_to_come_leave_half_of_the_places_to_the_others(world: World) -> None:
    loading = [world.ask(f"made up {number}", loads=True) for number in range(4)]
    with pytest.raises(Overloaded, match="waits for the images") as refused:
        world.ask("made up 4", loads=True)
    assert (refused.value.code, refused.value.retry_after_s) == ("overloaded", UNKNOWN_RETRY_S)
    for caller in "abcd":
        world.ask(caller)
    loading[0].end()
    world.ask("made up 5", loads=True)


def test_a_request_whose_images_have_come_leaves_its_place_to_the_next_that_loads(world: World) -> None:
    tickets = [world.ask(f"caller {number}", loads=True) for number in range(4)]
    tickets[0].loaded()
    tickets[0].loaded()
    world.ask("another", loads=True)
    with pytest.raises(Overloaded):
        world.ask("one more", loads=True)
    tickets[0].end(answered=True)
    with pytest.raises(Overloaded):
        world.ask("one more", loads=True)
    world.held.close()
    assert world.outstanding == 0
    assert [world.ask(f"caller {number}", loads=True) for number in range(4)]


def test_the_largest_request_loads_where_no_other_does() -> None:
    world = World(slots=2, rows=2)
    world.capacity = Capacity(1, 4, 2, 2)
    world.ask(generations=64, loads=True)
    world.ask("brings one")


def test_images_that_never_come_do_not_change_the_pace(world: World) -> None:
    for _ in range(4):
        world.ask()
    world.answer_one_a_second()
    world.held.close()
    before = world.rule._models["m"].pace.seconds(10)
    for _ in range(40):
        polite, fails = world.ask("polite"), world.ask("other", generations=4, loads=True)
        world.now += 0.1
        fails.end()
        world.now += 0.2
        polite.end(answered=True)
    assert world.rule._models["m"].pace.seconds(10) == before


def test_what_loads_of_a_batch_is_not_taken_for_what_waits_of_it() -> None:
    world = World(slots=40, rows=40)
    for number in range(12):
        world.ask(f"batch {number}", batch=True)
        world.ask(f"batch {number}", batch=True, loads=True)
    for number in range(20):
        world.ask(f"caller {number}")
    model = world.rule._models["m"]
    room = world.rule._room("m")
    assert model.before(Asked("m", "caller 0", 100.0), room) == 32


def test_slow_images_are_not_taken_for_a_slow_model(world: World) -> None:
    world.answer_one_a_second()
    for _ in range(4):
        world.ask()
    world.answer_one_a_second()
    world.held.close()
    for number in range(4):
        world.ask(f"made up {number}", loads=True)
    world.now += 60.0
    load = world.rule.load("m")
    assert (load.held, load.queue_s) == (4, 0.0)
    for caller in "abcd":
        world.ask(caller, remaining_s=1.0)
