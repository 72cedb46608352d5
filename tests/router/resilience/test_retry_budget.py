"""Retries are a bounded share of the requests, within a window that moves on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.resilience.retry_budget import RetryBudget


def taken(budget: RetryBudget, now: float) -> int:
    """How many retries are left at ``now``, all of which are taken."""
    count = 0
    while budget.take(now):
        count += 1
    return count


def test_the_floor_and_a_share_of_the_requests_are_allowed() -> None:
    budget = RetryBudget(0.2, 3, 10.0)
    assert taken(budget, 0.0) == 3
    for _ in range(25):
        budget.note_request(1.0)
    assert taken(budget, 1.0) == 5


def test_what_is_older_than_the_window_does_not_count() -> None:
    budget = RetryBudget(0.5, 0, 10.0)
    for _ in range(8):
        budget.note_request(0.0)
    assert budget.take(0.0)
    assert taken(budget, 9.9) == 3
    assert taken(budget, 10.0) == 0
    budget.note_request(10.0)
    budget.note_request(10.5)
    assert taken(budget, 10.6) == 0, "the three of 9.9 still count"
    assert taken(budget, 19.5) == 1


def test_nothing_is_allowed_where_both_are_0() -> None:
    budget = RetryBudget(0.0, 0, 10.0)
    budget.note_request(0.0)
    assert not budget.take(0.0)


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200), st.floats(0, 1), st.integers(0, 5))
def test_no_window_has_more_retries_than_it_allows(steps: list[tuple[float, bool]], share: float, floor: int) -> None:
    budget, now = RetryBudget(share, floor, 10.0), 0.0
    requests: list[float] = []
    retries: list[float] = []
    for pause, asks in steps:
        now += pause
        if asks:
            budget.note_request(now)
            requests.append(now)
        elif budget.take(now):
            retries.append(now)
            recent = [one for one in retries if one > now - 9]  # up to a slice is forgotten early
            assert len(recent) <= floor + share * len([one for one in requests if one > now - 10])
