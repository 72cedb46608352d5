"""The engine's figure for the wait of a request that comes now."""

from __future__ import annotations

import pytest

from vlm.engine.load import Load
from vlm.engine.places import Demand, Places
from vlm.pace import UNKNOWN_RETRY_S


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_finds_a_place_free_starts_at_once(clock: Clock) -> None:
    load = Load(4, clock)
    load.changed(3)
    clock.now += 10
    assert load.queue_s(3) == 0


def test_the_wait_is_what_is_ahead_over_the_pace(clock: Clock) -> None:
    load = Load(4, clock)
    load.changed(8)
    for _ in range(100):  # ten a second
        clock.now += 0.1
        load.served(1)
    assert load.queue_s(8) == pytest.approx(0.5)
    assert load.queue_s(4) == pytest.approx(0.1)
    assert load.queue_s(3) == 0


def test_places_count_and_not_generations(clock: Clock) -> None:
    load = Load(4, clock)
    load.changed(8)
    for _ in range(100):
        clock.now += 0.1
        load.served(3)
    assert load.queue_s(8) == pytest.approx(5 / 30)


def test_idle_time_says_nothing_about_the_pace(clock: Clock) -> None:
    load = Load(4, clock)
    load.changed(4)
    for _ in range(100):
        clock.now += 0.1
        load.served(1)
    load.changed(1)
    clock.now += 3600
    load.served(1)
    load.changed(4)
    assert load.queue_s(4) == pytest.approx(0.1)


def test_the_pace_follows_a_change(clock: Clock) -> None:
    load = Load(4, clock)
    load.changed(4)
    for _ in range(100):
        clock.now += 0.1
        load.served(1)
    for _ in range(30):
        clock.now += 1.0
        load.served(1)
    assert load.queue_s(4) == pytest.approx(1.0, rel=0.05)


def test_an_engine_that_serves_nothing_has_a_growing_queue(clock: Clock) -> None:
    load = Load(4, clock)
    load.changed(5)
    clock.now += 3
    assert load.queue_s(5) == pytest.approx(3)
    clock.now += 3
    assert load.queue_s(5) == pytest.approx(6)
    assert load.retry_after_s(300) == UNKNOWN_RETRY_S


def test_places_tell_it_what_is_held() -> None:
    seen: list[int] = []
    places = Places(8, changed=seen.append)
    holds = places.take(Demand(2, 2), "a", "loop")
    places.give_back(holds[:1])
    places.give_back_all("loop")
    assert seen == [4, 2, 0]
