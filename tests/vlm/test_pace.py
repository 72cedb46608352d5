"""How much gets done in a second."""

from __future__ import annotations

import threading

import pytest

from vlm.pace import LINGER_S, LONGEST_RETRY_S, UNKNOWN_RETRY_S, Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_answers_that_end_together_all_count(clock: Clock) -> None:
    """With the first of them, there is less than could be worked on."""
    pace = Pace(64, clock)
    for _ in range(10):
        pace.changed(busy=True)
        clock.now += 2.0
        for _ in range(64):
            pace.served(1)
            pace.changed(busy=False)
            clock.now += 0.001
        clock.now += 10.0
    assert pace.seconds(64) == pytest.approx(2.0, rel=0.05)


def test_what_comes_after_a_moment_does_not_count(clock: Clock) -> None:
    pace = Pace(2, clock)
    pace.changed(busy=True)
    clock.now += 1.0
    pace.served(2)
    pace.changed(busy=False)
    clock.now += LINGER_S + 0.01
    pace.served(1)
    assert pace.seconds(1) == pytest.approx(0.5)


def test_the_first_answers_of_a_batch_say_nothing_yet(clock: Clock) -> None:
    pace = Pace(4, clock)
    pace.changed(busy=True)
    clock.now += 3.0
    assert (pace.is_known, pace.seconds(100)) == (False, 3.0)
    pace.served(1)
    assert (pace.is_known, pace.seconds(100), pace.retry_after_s(100)) == (False, 0.0, UNKNOWN_RETRY_S)
    pace.served(3)
    assert pace.is_known
    assert pace.seconds(4) == pytest.approx(3.0)


def test_the_pace_of_one_server_is_known_when_their_number_changes(clock: Clock) -> None:
    pace = Pace(8, clock)
    pace.changed(busy=True)
    for _ in range(20):
        clock.now += 1.0
        pace.served(4, servers=2)
    assert pace.seconds(4, servers=2) == pytest.approx(1.0)
    assert pace.seconds(4, servers=1) == pytest.approx(2.0)


def test_seconds_to_try_again_after_are_whole_and_bounded(clock: Clock) -> None:
    pace = Pace(1, clock)
    pace.changed(busy=True)
    clock.now += 645.0
    assert pace.retry_after_s(1) == UNKNOWN_RETRY_S
    pace.served(1000)
    assert [pace.retry_after_s(places) for places in (0, 2, 10**6)] == [1, 2, LONGEST_RETRY_S]


def test_threads_lose_no_answer() -> None:
    pace = Pace(8000)
    pace.changed(busy=True)

    def serve() -> None:
        for _ in range(2000):
            pace.served(1)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert pace.is_known
