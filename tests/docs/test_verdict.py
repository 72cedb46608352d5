"""The verdicts of the gallery, on answers made by hand."""

from __future__ import annotations

import pytest

from docs.generate.questions import ExpectedObject, Question
from docs.generate.sample_images import THREE
from docs.generate.verdict import MIN_OVERLAP, verdict_on
from tests.router.world import geometry, words
from vlm.types import Detection, Point

CIRCLE, STAR = THREE.thing("red circle"), THREE.thing("yellow star")
DETECT = Question("m", "detect", THREE, {}, objects=(ExpectedObject("circle", CIRCLE), ExpectedObject("star", STAR)))
FOUND_CIRCLE, FOUND_STAR = Detection("box", "circle", box=CIRCLE.box), Detection("box", "star", box=STAR.box)


def test_boxes_are_right_with_their_smallest_overlap() -> None:
    assert verdict_on(DETECT, geometry(FOUND_CIRCLE, FOUND_STAR)) == "right; overlap 1.00 or more"


def test_what_is_missing_and_what_is_too_much_is_wrong() -> None:
    assert verdict_on(DETECT, geometry(FOUND_CIRCLE)).startswith("**wrong**: star is `195 225 285 315`")
    assert verdict_on(DETECT, geometry(FOUND_CIRCLE, FOUND_STAR, FOUND_STAR)) == "**wrong**: 1 too many"
    swapped = (Detection("box", "star", box=CIRCLE.box), Detection("box", "circle", box=STAR.box))
    assert verdict_on(DETECT, geometry(*swapped)).count("`") == 4


@pytest.mark.parametrize(("overlap", "verdict"), [(MIN_OVERLAP, "right; overlap 0.50 or more"), (0.49, "**wrong**")])
def test_the_smallest_overlap_that_is_right(overlap: float, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docs.generate.verdict.overlap", lambda *_: overlap)
    assert verdict_on(DETECT, geometry(FOUND_CIRCLE, FOUND_STAR)).startswith(verdict)


def test_a_point_is_right_anywhere_within_the_box_and_has_no_overlap() -> None:
    question = Question("m", "point", THREE, {}, objects=(ExpectedObject("circle", CIRCLE),))
    corner = Point(CIRCLE.box.x_max, CIRCLE.box.y_min)
    assert verdict_on(question, geometry(Detection("point", "circle", point=corner))) == "right"
    beside = Point(corner.x + 0.01, corner.y)
    assert verdict_on(question, geometry(Detection("point", "circle", point=beside))).startswith("**wrong**")


@pytest.mark.parametrize(("text", "verdict"), [("One red circle.", "right"), ("a blue circle", "**wrong**: it is *")])
def test_a_text_is_judged_by_its_words_that_decide(text: str, verdict: str) -> None:
    assert verdict_on(Question("m", "caption", THREE, {}, "a red circle"), words(text)).startswith(verdict)
