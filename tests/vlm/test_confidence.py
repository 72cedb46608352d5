"""The score follows its definition, whatever a model may write."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.confidence import matching, score

ANY = st.lists(st.floats(allow_infinity=True, allow_nan=True), max_size=12)
REAL = st.lists(st.floats(-50, 0), min_size=1, max_size=12)


def logs(*probabilities: float) -> list[float]:
    return [math.log(one) for one in probabilities]


def test_the_label_is_multiplied_and_the_location_averaged() -> None:
    assert score(logs(0.5, 0.125)) == pytest.approx(0.25)
    assert score(logs(0.5, 0.125), logs(0.5, 0.4)) == pytest.approx(0.25 * 0.2)


def test_a_certain_model_scores_one_and_an_impossible_token_zero() -> None:
    assert score([0.0] * 4, [0.0]) == 1
    assert score([0.0, -math.inf]) == 0
    assert score([0.0], [-math.inf]) == 0


def test_there_is_no_score_where_a_probability_is_not_known() -> None:
    assert score(()) is None
    assert score((), logs(0.5)) is None
    assert score([*logs(0.5), math.nan]) is None


def test_a_word_of_the_prompt_does_not_count() -> None:
    assert score(logs(0.5), [math.nan, *logs(0.5), math.nan]) == pytest.approx(0.25)
    assert score(logs(0.5), [math.nan]) == pytest.approx(0.5)


@given(location=ANY, label=ANY)
def test_any_numbers_give_none_or_a_number_from_0_to_1(location: list[float], label: list[float]) -> None:
    found = score(location, label)
    assert found is None or 0 <= found <= 1


@given(location=REAL, label=REAL, better=st.floats(0, 5))
def test_a_likelier_token_never_lowers_it(location: list[float], label: list[float], better: float) -> None:
    before = score(location, label)
    assert before is not None
    for more in (score([min(0.0, location[0] + better), *location[1:]], label),
                 score(location, [min(0.0, label[0] + better), *label[1:]])):  # fmt: skip
        assert more is not None
        assert more >= before * (1 - 1e-9)


def test_log_probabilities_belong_to_ids_only_where_there_is_one_for_each() -> None:
    assert matching([1, 2], [-1.0, -2.0]) == [-1.0, -2.0]
    assert matching([1, 2], [-1.0]) == ()
    assert matching([1], [-1.0, -2.0]) == ()
    assert matching([1], ()) == ()
