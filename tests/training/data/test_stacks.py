"""Stacks hold shapes that only their height tells apart, and no two that a label could confuse."""

from __future__ import annotations

from itertools import combinations, pairwise

from training.data.stacks import stack
from training.data.world import HELD_OUT
from vlm.types import Box

STACKS = [stack(seed) for seed in range(60)]


def apart(one: Box, other: Box) -> bool:
    return one.y_max < other.y_min or other.y_max < one.y_min


def test_a_seed_is_always_the_same_stack() -> None:
    assert [stack(seed) for seed in range(5)] == STACKS[:5]
    assert [stack(HELD_OUT + seed) for seed in range(5)] != STACKS[:5]


def test_shapes_are_one_above_the_other_from_top_to_bottom() -> None:
    for one in STACKS:
        assert len(one.shapes) in {2, 3}
        assert one.word is None
        centres = [shape.centre for shape in one.shapes]
        assert all(abs(first.x - second.x) < 0.025 for first, second in combinations(centres, 2))
        assert all(upper.y < lower.y for upper, lower in pairwise(centres))
        assert all(apart(first.box, second.box) for first, second in combinations(one.shapes, 2))


def test_every_shape_has_a_name_of_its_own_and_lies_within_the_image() -> None:
    for one in STACKS:
        assert len({shape.name for shape in one.shapes}) == len(one.shapes)
        for shape in one.shapes:
            assert 0 < shape.box.x_min < shape.box.x_max < 1
            assert 0 < shape.box.y_min < shape.box.y_max < 1


def test_a_stack_can_be_laid_out_for_a_size() -> None:
    one = stack(3, (640, 480))
    assert (one.width, one.height) == (640, 480)
