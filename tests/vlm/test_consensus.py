"""What several models agree on: matching, merging, and that the order of the models does not matter."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.consensus import Vote, agreed, iou, label_key, majority, overlap, weight_of
from vlm.models.cards import cards
from vlm.types import Box, Detection, Grounding, Point

A, B, C = "alpha", "beta", "gamma"


def box(x: float, y: float, side: float = 0.2, label: str = "cup", **fields: object) -> Detection:
    return replace(Detection("box", label=label, box=Box(x, y, x + side, y + side)), **fields)  # type: ignore[arg-type]


def vote(model: str, *found: Detection) -> Vote:
    return Vote(model, Grounding("detect", "<OD>", "text", (640, 480), found, raw="raw"))


def test_two_of_three_agree() -> None:
    merged = agreed([vote(A, box(0.1, 0.1)), vote(B, box(0.12, 0.1)), vote(C, box(0.7, 0.7))])
    [found] = merged.detections
    assert found.box is not None
    assert (found.label, found.kind) == ("cup", "box")
    assert [found.score, found.box.x_min, found.box.x_max] == pytest.approx([2 / 3, 0.11, 0.31])
    assert found.consensus is not None
    assert (found.consensus.votes, found.consensus.models) == (2, (A, B))
    assert 0 < found.consensus.spread < 0.15
    assert (merged.text, merged.raw, merged.native_task, merged.image_size) == (None, "", "", (640, 480))


def test_equal_boxes_have_no_spread() -> None:
    [found] = agreed([vote(A, box(0.1, 0.1)), vote(B, box(0.1, 0.1))]).detections
    assert found.consensus is not None
    assert [found.score, found.consensus.spread] == pytest.approx([1.0, 0.0])


def test_those_with_most_votes_come_first() -> None:
    far, near = box(0.6, 0.6, label="hat"), box(0.1, 0.1)
    merged = agreed([vote(A, far, near), vote(B, near, far), vote(C, near)])
    assert [found.label for found in merged.detections] == ["cup", "hat"]


@pytest.mark.parametrize(("votes", "number"), [(1, 2), (2, 1), (3, 0)])
def test_min_votes(votes: int, number: int) -> None:
    answers = [vote(A, box(0.1, 0.1), box(0.7, 0.7)), vote(B, box(0.1, 0.1)), vote(C)]
    assert len(agreed(answers, votes).detections) == number


@pytest.mark.parametrize(("models", "votes"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_majority(models: int, votes: int) -> None:
    assert majority(models) == votes


def test_a_model_has_one_vote_for_an_object() -> None:
    merged = agreed([vote(A, box(0.1, 0.1), box(0.11, 0.1)), vote(B, box(0.1, 0.1))], 1)
    assert sorted(found.consensus.votes for found in merged.detections if found.consensus) == [1, 2]


def test_pairs_are_those_that_fit_best_together() -> None:
    """One by one, the first would take the second's partner, and leave the second without."""
    first, second = box(0.10, 0.1), box(0.16, 0.1)
    merged = agreed([vote(A, first, second), vote(B, box(0.13, 0.1), box(0.19, 0.1))])
    assert [found.consensus.votes for found in merged.detections if found.consensus] == [2, 2]


def test_other_labels_other_places_and_other_images_are_other_objects() -> None:
    one = box(0.1, 0.1)
    for other in (box(0.1, 0.1, label="hat"), box(0.25, 0.1), replace(one, image=1)):
        assert agreed([vote(A, one), vote(B, other)]).detections == ()


def test_confident_models_place_the_box() -> None:
    sure, unsure = box(0.1, 0.1, confidence=0.9), box(0.13, 0.1, confidence=0.3)
    [found] = agreed([vote(A, sure), vote(B, unsure), vote(C)], 2).detections
    assert found.box is not None
    assert found.box.x_min == pytest.approx((0.1 * 0.81 + 0.13 * 0.09) / 0.9)
    assert found.score == pytest.approx(1.2 / 3)


def test_one_without_a_confidence_makes_all_weigh_the_same() -> None:
    [found] = agreed([vote(A, box(0.1, 0.1, confidence=0.5)), vote(B, box(0.12, 0.1))]).detections
    assert found.box is not None
    assert [found.box.x_min, found.score] == pytest.approx([0.11, 0.75])


def test_a_model_counts_by_its_weight() -> None:
    votes = [vote(A, box(0.1, 0.1)), replace(vote(B, box(0.14, 0.1)), weight=3.0), vote(C)]
    [found] = agreed(votes).detections
    assert found.box is not None
    assert [found.box.x_min, found.score] == pytest.approx([0.13, 0.8])


def test_weights_follow_the_cards() -> None:
    florence, kosmos = cards()["florence-2-base"], cards()["kosmos-2"]
    assert (weight_of(florence, "detect"), weight_of(kosmos, "detect")) == (1, 1 / 3)
    assert weight_of(florence, "unheard of") == 1 / 9


def test_no_confidence_at_all_is_a_weight_too() -> None:
    [found] = agreed([vote(A, box(0.1, 0.1, confidence=0.0)), vote(B, box(0.12, 0.1, confidence=0.0))]).detections
    assert found.box is not None
    assert [found.box.x_min, found.score] == pytest.approx([0.11, 0.0])


def test_points() -> None:
    near, far = Detection("point", label="eye", point=Point(0.5, 0.5)), Detection("point", point=Point(0.9, 0.5))
    merged = agreed([vote(A, near), vote(B, replace(near, point=Point(0.52, 0.5))), vote(C, far)])
    [found] = merged.detections
    assert found.point is not None
    assert found.consensus is not None
    assert [found.point.x, found.point.y, found.consensus.spread] == pytest.approx([0.51, 0.5, 0.01])
    assert overlap(near, far) == overlap(near, box(0.4, 0.4)) == 0


def test_texts_that_were_read() -> None:
    corners = (Point(0.1, 0.1), Point(0.3, 0.1), Point(0.3, 0.3), Point(0.1, 0.3))
    read = replace(box(0.1, 0.1, label="x"), kind="quad", label=None, text="SALE 50", quad=corners)
    moved = replace(read, text="sale 5O", quad=tuple(Point(one.x + 0.02, one.y) for one in corners))
    [found] = agreed([vote(A, read), vote(B, moved), vote(C, replace(read, text="EXIT"))]).detections
    assert (found.kind, found.text) == ("quad", "SALE 50")
    assert found.quad is not None
    assert [found.quad[0].x, found.quad[0].y] == pytest.approx([0.11, 0.1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Dog", "a dog"),
        ("the traffic lights", "traffic light"),
        ("café", "Cafe"),
        ("T-shirt", "t shirt"),
        ("glass", "glass"),
        ("dogs.", "dog"),
        (None, ""),
    ],
)
def test_the_same_label(one: str | None, other: str | None) -> None:
    assert label_key(one) == label_key(other)


@pytest.mark.parametrize(("one", "other"), [("dog", "cat"), ("bus", "bu"), ("red cup", "cup"), ("a", "an apple")])
def test_another_label(one: str, other: str) -> None:
    assert label_key(one) != label_key(other)


def test_the_commonest_spelling_is_the_label() -> None:
    merged = agreed([vote(A, box(0.1, 0.1, label="a Cup")), *(vote(name, box(0.1, 0.1)) for name in (B, C))])
    assert [found.label for found in merged.detections] == ["cup"]


def test_boxes_without_an_area() -> None:
    dot = Box(0.5, 0.5, 0.5, 0.5)
    assert (iou(dot, dot), iou(dot, Box(0.4, 0.5, 0.4, 0.5))) == (1.0, 0.0)


def test_nothing_found() -> None:
    assert agreed([vote(A), vote(B)]).detections == ()


def test_many_objects_take_a_moment() -> None:
    rng = random.Random(1)
    places = [(rng.uniform(0, 0.95), rng.uniform(0, 0.95)) for _ in range(200)]
    found = [[box(x + rng.gauss(0, 0.001), y, 0.04) for x, y in places] for _ in range(3)]
    merged = agreed([vote(name, *objects) for name, objects in zip((A, B, C), found, strict=True)])
    assert 100 < len(merged.detections) <= 200


def test_what_needs_no_merging_needs_no_scipy() -> None:
    """The router imports this module when it starts, and scipy's import takes time and memory."""
    script = "import sys, router.app, vlm.consensus; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


shares = st.floats(0, 1).map(lambda share: round(share, 3))
boxes = st.tuples(shares, shares, shares, shares).map(
    lambda four: Box(min(four[:2]), min(four[2:]), max(four[:2]), max(four[2:]))
)
objects = st.builds(
    Detection,
    st.just("box"),
    label=st.sampled_from(["cup", "hat", None]),
    box=boxes,
    confidence=st.none() | shares,
)


answered = st.tuples(st.lists(objects, max_size=4), st.sampled_from([1.0, 1 / 2, 1 / 3]))


@given(st.lists(answered, min_size=1, max_size=4), st.integers(1, 4))
def test_the_order_does_not_matter_and_all_stays_within(
    answers: list[tuple[list[Detection], float]], votes: int
) -> None:
    named = [replace(vote(f"model {at}", *found), weight=weight) for at, (found, weight) in enumerate(answers)]
    results = [agreed([*order], votes) for order in itertools.islice(itertools.permutations(named), 6)]
    assert all(result == results[0] for result in results)
    for found in results[0].detections:
        assert found.consensus is not None
        assert found.box is not None
        assert votes <= found.consensus.votes == len(set(found.consensus.models)) <= len(answers)
        assert 0 <= found.box.x_min <= found.box.x_max <= 1
        assert 0 <= found.box.y_min <= found.box.y_max <= 1
        assert found.score is not None
        assert 0 <= found.score <= 1
        assert -1e-9 <= found.consensus.spread <= 1
