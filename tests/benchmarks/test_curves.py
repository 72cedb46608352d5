"""The numbers of a calibration."""

from __future__ import annotations

import random

import pytest

from benchmarks.curves import Judged, calibrated, expected_error, fit, least_threshold
from vlm.calibration import Curve


def world(seed: int, number: int = 4000) -> list[Judged]:
    """Scores whose square is the share of what is right."""
    rng = random.Random(seed)
    scores = [rng.random() for _ in range(number)]
    return [Judged(score, rng.random() < score**2) for score in scores]


def test_a_fitted_curve_rises_and_finds_the_shares() -> None:
    knots = fit(world(1))
    assert list(knots) == sorted(knots)
    assert [share for _, share in knots] == sorted(share for _, share in knots)
    curve = Curve(knots, 1, 0, 0)
    assert [curve.at(score) for score in (0.3, 0.6, 0.9)] == pytest.approx([0.09, 0.36, 0.81], abs=0.05)


def test_the_error_of_confidences_is_smaller_on_others_of_the_same_kind() -> None:
    curve, others = Curve(fit(world(1)), 1, 0, 0), world(2)
    before, after = expected_error(others), expected_error(calibrated(others, curve.at))
    assert before == pytest.approx(1 / 6, abs=0.03)
    assert after < 0.03


def test_no_confidence_is_certain() -> None:
    ((score, share),) = fit([Judged(0.5, right=True)] * 50)
    assert score == 0.5
    assert share == pytest.approx(1 - 0.5 / 25)


def test_the_error_of_nothing_is_nothing() -> None:
    assert expected_error([]) == 0


def test_what_is_certain_and_wrong_is_counted() -> None:
    assert expected_error([Judged(1.0, right=False)] * 3) == 1


def test_the_least_threshold_keeps_the_accuracy() -> None:
    confidences = [0.9, 0.8, 0.7, None]
    right, otherwise = [True, True, False, False], [True, True, True, True]
    assert least_threshold(confidences, right, otherwise, 0.99) == 0.8
    assert least_threshold(confidences, right, otherwise, 0.7) == 0.7
    assert least_threshold([0.9], [False], [True], 0.99) is None


def test_a_model_that_is_better_than_the_next_one_is_content_with_most() -> None:
    right, otherwise = [True, True, True, False], [False, True, False, False]
    assert least_threshold([0.9, 0.8, 0.7, 0.2], right, otherwise, 0.99) == 0.2
