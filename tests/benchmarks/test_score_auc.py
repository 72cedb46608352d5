"""Right boxes score higher than wrong ones, and the benchmark that measures it is correct."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.score_auc import QUESTIONS, JudgedObject, auc, measure
from benchmarks.shapes import DISTURBANCES, KINDS, SIZES, make_image, make_images
from vlm.types import Sampling

MIN_AUC = {"detection": 0.6, "phrase grounding": 0.65, "phrases, misread": 0.65}
"""In the row of misread phrases, some phrases name nothing in the image, and every model answers with a wrong box."""

OBJECTS = st.lists(st.builds(JudgedObject, st.booleans(), st.sampled_from((0.0, 0.1, 0.5, 1.0))), max_size=20)


@pytest.fixture(scope="module")
def measured() -> dict[str, list[JudgedObject]]:
    """Objects that the Florence-2 miniature detects in images that are hard to read."""
    questions = [question for question in QUESTIONS if question.name in MIN_AUC]
    answers = measure(questions, make_images(80, hard=True), Sampling(num_beams=1))
    return {question.name: objects for question, objects in zip(questions, answers, strict=True)}


@pytest.mark.parametrize("name", MIN_AUC)
def test_right_boxes_score_higher_than_wrong_ones(measured: dict[str, list[JudgedObject]], name: str) -> None:
    right = sum(one.right for one in measured[name])
    assert min(right, len(measured[name]) - right) >= 20
    assert (auc(measured[name]) or 0) > MIN_AUC[name]


@given(OBJECTS)
def test_auc_is_the_share_of_pairs_in_the_right_order(objects: list[JudgedObject]) -> None:
    pairs = [(a.score, b.score) for a in objects if a.right for b in objects if not b.right]
    wins = sum((right > wrong) + (right == wrong) / 2 for right, wrong in pairs)
    assert auc(objects) == (pytest.approx(wins / len(pairs)) if pairs else None)


@pytest.mark.parametrize("hard", [False, True])
def test_a_seed_is_always_the_same_image_with_valid_shapes(hard: bool) -> None:
    images = make_images(40, hard=hard)
    assert images == [make_image(seed, hard=hard) for seed in range(40)]
    for one in images:
        names = [shape.name for shape in one.shapes]
        assert len(set(names)) == len(names) <= 5
        assert all(shape.name in one.caption for shape in one.shapes[:3])
        for shape in one.shapes:
            assert shape.kind in KINDS
            assert shape.size in SIZES
            assert shape.box == replace(shape.box, x_min=max(0, shape.box.x_min), y_max=min(1, shape.box.y_max))


def test_there_are_several_disturbances() -> None:
    assert len(DISTURBANCES) >= 5
    assert make_image(1, hard=True).image != make_image(1, hard=False).image
