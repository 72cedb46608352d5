"""The order in which images are decoded, and the memory that they may take together."""

from __future__ import annotations

import threading

from vlm.decoding.queue import AGEING_BYTES_PER_S, SMALL_FRACTION, DecodeQueue, Job

MIB = 1024**2
MEMORY = 512 * MIB
SMALL, BIG = MEMORY // SMALL_FRACTION, 200 * MIB


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def queue(*jobs: Job, processes: int = 2, clock: Clock | None = None) -> DecodeQueue:
    made = DecodeQueue(processes, MEMORY, clock or Clock())
    for job in jobs:
        assert made.put(job)
    return made


def jobs(*costs: int) -> list[Job]:
    return [Job(b"", cost) for cost in costs]


def take(queue: DecodeQueue, *, only_small: bool = False) -> Job | None:
    """The next job, or None where the real one would wait."""
    with queue._changed:
        return queue._next(only_small=only_small)


def test_the_smallest_is_first_and_equal_ones_keep_their_order() -> None:
    made = jobs(3, 1, 2, 1)
    waiting = queue(*made)
    assert [take(waiting) for _ in range(5)] == [made[1], made[3], made[2], made[0], None]


def test_big_images_start_while_the_budget_has_room() -> None:
    made = jobs(BIG, BIG, BIG)
    waiting = queue(*made)
    assert [take(waiting), take(waiting), take(waiting)] == [*made[:2], None]
    waiting.finished(made[0])
    assert take(waiting) is made[2]


def test_small_images_pass_big_ones_and_one_process_is_left_to_them() -> None:
    big, other, small = jobs(BIG, 2 * BIG, SMALL)
    waiting = queue(big, other)
    assert take(waiting, only_small=True) is None
    assert take(waiting) is big
    waiting.put(small)
    assert take(waiting, only_small=True) is small
    assert take(waiting) is None


def test_an_image_beyond_the_budget_is_decoded_when_no_other_big_one_is() -> None:
    huge, big, later = jobs(3 * MEMORY, BIG, BIG)
    waiting = queue(big, huge)
    assert [take(waiting), take(waiting)] == [big, None]
    waiting.finished(big)
    assert take(waiting) is huge
    waiting.put(later)
    assert take(waiting) is None
    waiting.finished(huge)
    assert take(waiting) is later


def test_a_big_image_that_has_waited_goes_first() -> None:
    clock = Clock()
    big, early, late = jobs(BIG, SMALL, SMALL)
    waiting = queue(big, early, clock=clock)
    clock.now = BIG / AGEING_BYTES_PER_S
    waiting.put(late)
    assert [take(waiting), take(waiting), take(waiting)] == [early, big, late]


def test_a_big_image_that_does_not_fit_is_not_passed_by_another() -> None:
    clock = Clock()
    running, first, second = jobs(BIG, 2 * BIG, SMALL + 1)
    waiting = queue(running, clock=clock)
    assert take(waiting) is running
    waiting.put(first)
    clock.now = 60
    waiting.put(second)
    assert take(waiting) is None
    waiting.finished(running)
    assert take(waiting) is first


def test_what_is_given_up_is_left_out() -> None:
    made = jobs(1, 2, BIG)
    waiting = queue(*made)
    for job in (made[0], made[2]):
        waiting.discard(job)
    assert [take(waiting), take(waiting)] == [made[1], None]
    waiting.discard(made[1])


def test_closing_returns_what_waits_and_wakes_those_that_take() -> None:
    made = jobs(BIG)
    waiting = queue(*made)
    taken: list[Job | None] = []
    thread = threading.Thread(target=lambda: taken.append(waiting.take(only_small=True)))
    thread.start()
    assert waiting.close() == made
    thread.join(10)
    assert taken == [None]
    assert not waiting.put(made[0])
    assert waiting.take(only_small=False) is None
