"""Scores of answers in cases made by hand."""

from __future__ import annotations

import pytest

from training.evaluation.metrics import Score, box_f1, exact, letters, overlap, point_f1, polygon_overlap
from vlm.types import Box, Point

LEFT, RIGHT = Box(0.0, 0.0, 0.4, 1.0), Box(0.6, 0.0, 1.0, 1.0)
SQUARE = (Point(0.25, 0.25), Point(0.75, 0.25), Point(0.75, 0.75), Point(0.25, 0.75))


def test_texts_are_right_or_wrong() -> None:
    assert exact(" a  red circle", "a red circle") == Score(1, 1)
    assert exact("a red star", "a red circle") == Score(0, 1)


@pytest.mark.parametrize(
    ("text", "gained"), [("STOP", 4), ("STP", 3), ("STOOP", 3), ("XXXX", 0), ("", 0), ("ABCDEFGHI", 0)]
)
def test_letters_count_one_by_one(text: str, gained: int) -> None:
    assert letters(text, "STOP") == Score(gained, 4)


def test_each_expected_box_is_found_once_and_by_its_label() -> None:
    expected = [("a", LEFT), ("a", RIGHT)]
    assert box_f1(expected, expected) == Score(4, 4)
    assert box_f1([("a", LEFT), ("a", LEFT)], expected) == Score(2, 4)
    assert box_f1([("b", LEFT)], expected) == Score(0, 3)
    assert box_f1([], []) == Score(0, 0)
    assert box_f1([("a", Box(0.3, 0.0, 0.7, 1.0))], expected) == Score(0, 3)  # overlaps too little


def test_a_box_finds_the_expected_box_that_it_overlaps_most() -> None:
    low, high = Box(0.0, 0.0, 1.0, 0.75), Box(0.0, 0.25, 1.0, 1.0)  # each overlaps the other by a half
    for expected in ([("a", low), ("a", high)], [("a", high), ("a", low)]):
        assert box_f1([("a", high), ("a", Box(0.0, 0.0, 1.0, 0.5))], expected) == Score(4, 4)


def test_overlap_of_boxes_and_polygons() -> None:
    assert overlap(LEFT, LEFT) == pytest.approx(1)
    assert overlap(LEFT, RIGHT) == 0
    assert overlap(LEFT, Box(0.2, 0.0, 0.6, 1.0)) == pytest.approx(1 / 3)
    box = Box(0.0, 0.0, 0.5, 0.5)
    assert overlap(box, Box(0.25, 0.0, 0.75, 0.5)) == pytest.approx(1 / 3)
    assert overlap(box, Box(0.6, 0.6, 0.9, 0.9)) == 0
    assert polygon_overlap([SQUARE], SQUARE) == Score(1, 1)
    assert polygon_overlap([], SQUARE) == Score(0, 1)
    half = (Point(0.25, 0.25), Point(0.75, 0.25), Point(0.75, 0.5), Point(0.25, 0.5))
    assert polygon_overlap([half], SQUARE).gained == pytest.approx(0.5, abs=0.02)


def test_points_must_lie_inside_the_outline() -> None:
    assert point_f1([Point(0.5, 0.5)], [SQUARE]) == Score(2, 2)
    assert point_f1([Point(0.1, 0.5)], [SQUARE]) == Score(0, 2)
    assert point_f1([Point(0.5, 0.5), Point(0.5, 0.5)], [SQUARE]) == Score(2, 3)
    assert point_f1([Point(1.0, 1.0)], []) == Score(0, 1)
    corner = (Point(0.75, 0.75), Point(1.0, 0.75), Point(1.0, 1.0), Point(0.75, 1.0))
    assert point_f1([Point(1.0, 1.0)], [corner]) == Score(2, 2)
