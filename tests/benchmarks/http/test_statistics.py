"""Quantiles, ratios, goodput and arrival times, on numbers that can be checked by hand."""

from __future__ import annotations

from itertools import pairwise
from statistics import mean, pstdev

import pytest

from benchmarks.http.statistics import Ratio, Times, goodput, poisson_times, quantile, ratio, times


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.95, 95), (0.951, 96), (1.0, 100)])
def test_a_quantile_is_a_value_that_so_many_do_not_exceed(share: float, value: float) -> None:
    assert quantile(list(range(100, 0, -1)), share) == value


def test_the_quantiles_of_a_single_value_are_that_value() -> None:
    assert times([0.25]) == Times(250, 250, 250)


def test_there_is_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)
    assert times([]) == Times(0, 0, 0)


def test_a_ratio_is_of_rounds_and_not_of_medians() -> None:
    """The machine was twice as fast in the second round; the median of each by itself would mix the rounds."""
    assert ratio([30, 60, 33], [10, 30, 11]) == Ratio(3, 2, 3)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_there_is_no_ratio_of_systems_that_have_not_taken_turns(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # its own, or zip's
        ratio(ours, theirs)


def test_goodput_leaves_out_what_came_too_late() -> None:
    assert goodput([0.1, 1.0, 1.1, 5.0], objective_s=1.0, duration_s=4.0) == 0.5


def test_arrivals_are_as_many_as_asked_for_and_know_nothing_of_each_other() -> None:
    due = poisson_times(50, 400, seed=3)
    assert due == sorted(due)
    assert 0 < due[0] < due[-1] < 400
    assert len(due) == pytest.approx(20_000, rel=0.03)
    gaps = [after - before for before, after in pairwise(due)]
    assert pstdev(gaps) == pytest.approx(mean(gaps), rel=0.03)  # as of an exponential distribution


def test_every_system_gets_the_same_arrivals() -> None:
    assert poisson_times(5, 10, seed=1) == poisson_times(5, 10, seed=1) != poisson_times(5, 10, seed=2)
