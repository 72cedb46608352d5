"""Polygons, regions without labels, and text about a region, held against transformers' post-processing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vlm.models.florence2.test_parsing import (
    ANY_TOKEN,
    BIN,
    LABEL,
    THEIRS,
    VOCABULARY,
    answers,
    ascii_only,
    bins,
    boxes,
    check,
    locations,
    ours_boxes,
    pixels,
    reference,
    whole,
)
from vlm.models.florence2.parsing import (
    as_points,
    read_boxes_or_polygons,
    read_polygons,
    read_region_text,
    read_regions,
    runs,
)
from vlm.models.processor import Parsed
from vlm.types import Box, Detection, Point

Named = tuple[str, list[list[int]]]

SEGMENT, FIND, PROPOSE = "<REGION_TO_SEGMENTATION>", "<OPEN_VOCABULARY_DETECTION>", "<REGION_PROPOSAL>"
SEP, START, END, OTHER = (
    THEIRS.tokenizer.convert_tokens_to_ids(token) for token in ("<sep>", "<poly>", "</poly>", "<od>")
)
MARK = st.sampled_from([SEP, START, END, OTHER])
ANYTHING = st.lists(st.one_of(ANY_TOKEN, BIN, MARK, MARK), max_size=60)
TRIANGLE, SQUARE = locations(1, 1, 9, 1, 5, 9), locations(11, 11, 19, 11, 19, 19, 11, 19)


def joined(groups: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(token for index, group in enumerate(groups) for token in ((SEP,) if index else ()) + group)


RING = bins(st.integers(3, 6).map(lambda corners: 2 * corners))
OBJECT = st.lists(RING, min_size=1, max_size=3).map(joined)
GROUPS = st.lists(OBJECT.map(lambda inner: (START, *inner, END)), min_size=1, max_size=3).map(
    lambda groups: sum(groups, ())
)
NAMED = st.lists(st.tuples(LABEL, GROUPS).map(lambda pair: pair[0] + pair[1]), max_size=4).map(
    lambda objects: sum(objects, ())
)


def tokens(text: str) -> list[int]:
    """As the tokenizer encodes it, special tokens included."""
    found: list[int] = THEIRS.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def segment(given: list[int] | str, *, named: bool = False, finished: bool = True) -> Parsed:
    ids = tokens(given) if isinstance(given, str) else given
    return read_polygons(ids, VOCABULARY, labelled=named, finished=finished)


def find(given: list[int] | str, *, finished: bool = True) -> Parsed:
    ids = tokens(given) if isinstance(given, str) else given
    return read_boxes_or_polygons(ids, VOCABULARY, finished=finished)


def propose(given: list[int] | str, *, finished: bool = True) -> Parsed:
    ids = tokens(given) if isinstance(given, str) else given
    return read_regions(runs(ids, VOCABULARY), finished=finished)


def told(given: list[int] | str, text: str, *, finished: bool = True) -> Parsed:
    ids = tokens(given) if isinstance(given, str) else given
    return read_region_text(runs(ids, VOCABULARY), text, finished=finished)


def ours(parsed: Parsed) -> list[Named]:
    return [(ascii_only(found.label), [flat(one) for one in found.polygons or ()]) for found in parsed.detections]


def flat(polygon: tuple[Point, ...]) -> list[int]:
    return [int(value * 1000) for corner in polygon for value in (corner.x, corner.y)]


def theirs(found: dict[str, Any], labels: str = "labels") -> list[Named]:
    """The reference's polygons, in pixels that are bins."""
    return [(ascii_only(label), polygons) for label, polygons in zip(found[labels], found["polygons"], strict=True)]


@settings(max_examples=100, deadline=None)
@given(answer=st.one_of(OBJECT, GROUPS, st.just(())))
def test_well_formed_segments_are_the_references(answer: tuple[int, ...]) -> None:
    parsed = segment(list(answer))
    assert ours(parsed) == theirs(reference(SEGMENT, [0, *answer, 2]))
    assert (parsed.text, parsed.truncated) == (None, False)


@settings(max_examples=100, deadline=None)
@given(answer=NAMED)
def test_well_formed_named_polygons_are_the_references(answer: tuple[int, ...]) -> None:
    parsed = find([0, *answer, 2])
    theirs_found = reference(FIND, [0, *answer, 2])
    assert ours(parsed) == theirs(theirs_found, "polygons_labels")
    assert (theirs_found["bboxes"], parsed.truncated) == ([], False)


@settings(max_examples=100, deadline=None)
@given(answer=answers(st.integers(0, 13)))
def test_boxes_of_an_open_vocabulary_are_the_references(answer: list[int]) -> None:
    found = reference(FIND, answer)
    pairs = zip(found["bboxes_labels"], found["bboxes"], strict=True)
    upright = [(label, [*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])]) for label, box in pairs]
    expected = [(label.rpartition(">")[2].strip(), box) for label, box in upright if not label.endswith(">")]
    assert ours_boxes(find(answer)) == expected


@settings(max_examples=100, deadline=None)
@given(answer=st.one_of(bins(whole(4)), answers(st.integers(0, 13))))
def test_proposed_regions_are_the_references(answer: list[int]) -> None:
    found = reference(PROPOSE, list(answer))
    boxes_found = [[*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])] for box in found["bboxes"]]
    parsed = propose(list(answer))
    assert [pixels(detection.box) for detection in parsed.detections] == boxes_found
    assert set(found["labels"]) <= {""}
    assert all(detection.label is None for detection in parsed.detections)


@settings(max_examples=200, deadline=None)
@given(answer=ANYTHING, finished=st.booleans(), named=st.booleans())
def test_whatever_is_written_gives_well_formed_shapes(answer: list[int], finished: bool, named: bool) -> None:
    text = VOCABULARY.decode(answer)
    every = (segment(answer, named=named, finished=finished), find(answer, finished=finished),
             propose(answer, finished=finished), told(answer, text, finished=finished))  # fmt: skip
    for parsed in every:
        assert parsed.truncated or finished
        for detection in parsed.detections:
            check(detection)
            check_polygons(detection)
        assert [d.point is not None for d in as_points(parsed).detections] == [True] * len(parsed.detections)


def check_polygons(detection: Detection) -> None:
    if detection.kind != "polygon":
        assert detection.polygons is None
        return
    assert detection.polygons
    assert all(len(polygon) >= 3 for polygon in detection.polygons)
    assert detection.box == Box.spanning(tuple(corner for polygon in detection.polygons for corner in polygon))


@settings(max_examples=200, deadline=None)
@given(answer=ANYTHING, named=st.booleans())
def test_no_polygon_is_invented(answer: list[int], named: bool) -> None:
    """Each was written as it is: its bins in a row, nothing between them but silent tokens."""
    visible = [token for token in answer if token not in (VOCABULARY.bos, VOCABULARY.eos, VOCABULARY.pad)]
    written = " ".join(str(VOCABULARY.bins.get(token, "-")) for token in visible)
    for _, polygons in ours(segment(answer, named=named)):
        for polygon in polygons:
            assert f" {' '.join(map(str, polygon))} " in f" {written} "


def test_centres_of_bins_and_the_enclosing_box_are_kept_in_full() -> None:
    [found] = segment(locations(0, 1, 998, 999, 500, 2)).detections
    assert found.polygons == ((Point(0.0005, 0.0015), Point(0.9985, 0.9995), Point(0.5005, 0.0025)),)
    assert (found.kind, found.label, found.box) == ("polygon", None, Box(0.0005, 0.0015, 0.9985, 0.9995))


def test_separated_polygons_belong_to_one_object_and_groups_are_objects() -> None:
    assert [len(d.polygons or ()) for d in segment(f"{TRIANGLE}<sep>{SQUARE}").detections] == [2]
    grouped = segment(f"<poly>{TRIANGLE}<sep>{SQUARE}</poly><poly>{TRIANGLE}</poly>")
    assert [len(d.polygons or ()) for d in grouped.detections] == [2, 1]
    assert not grouped.truncated


def test_a_label_owns_all_groups_that_follow_it() -> None:
    text = f"a car<poly>{TRIANGLE}</poly><poly>{SQUARE}</poly>a dog<poly>{SQUARE}</poly>"
    assert [d.label for d in find(text).detections] == ["a car", "a car", "a dog"]


@pytest.mark.parametrize(
    ("text", "corners"),
    [
        (TRIANGLE + locations(7), [[3]]),
        (f"{TRIANGLE}<sep>{locations(1, 2, 3, 4)}", [[3]]),
        (locations(1, 2, 3, 4), []),
        (locations(1), []),
        (f"{locations(1, 2)}<sep>{SQUARE}", [[4]]),
        (f"<poly>{TRIANGLE}</poly><poly>{SQUARE}", [[3], [4]]),
        (f"{TRIANGLE}</poly>", [[3]]),
        ("<poly></poly>", []),
        (f"<poly><poly>{TRIANGLE}</poly></poly>", [[3]]),
        (f"a car{TRIANGLE}", [[3]]),
        ("a car", []),
        ("<poly>", []),
    ],
)
def test_incomplete_polygons_are_left_out_and_reported(text: str, corners: list[list[int]]) -> None:
    parsed = segment(text)
    assert [[len(polygon) for polygon in d.polygons or ()] for d in parsed.detections] == corners
    assert parsed.truncated
    assert all(detection.label is None for detection in parsed.detections)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (f"<poly>{TRIANGLE}</poly>", []),
        (f"car<poly>{TRIANGLE}</poly>dog", ["car"]),
        (f"car<poly>{TRIANGLE}</poly>dog<poly>", ["car"]),
        (f"dog<sep>car<poly>{TRIANGLE}</poly>", ["car"]),
        (f"car<poly>{TRIANGLE}<sep>dog<poly>{TRIANGLE}</poly>", ["car", "dog"]),
        (f"car<od><poly>{TRIANGLE}</poly>", []),
        (f"car{locations(1, 2, 3, 4)}dog<poly>{TRIANGLE}</poly>", ["dog"]),
    ],
)
def test_malformed_named_polygons_keep_what_is_complete(text: str, labels: list[str]) -> None:
    parsed = find(text)
    assert [d.label for d in parsed.detections] == labels
    assert parsed.truncated


def test_an_answer_without_polygons_is_complete_and_one_that_was_cut_is_not() -> None:
    assert segment([0, 2]) == find([0, 2]) == propose([0, 2]) == Parsed(None)
    assert segment(TRIANGLE, finished=False).truncated
    assert propose(locations(1, 2, 3, 4), finished=False).truncated


@pytest.mark.parametrize(
    "text", [locations(1, 2, 3, 4, 5), "car" + locations(1, 2, 3, 4), locations(1, 2, 3, 4) + "car"]
)
def test_leftovers_beside_proposed_regions_are_reported(text: str) -> None:
    parsed = propose(text.format(locations(1, 2, 3, 4)))
    assert [(d.label, pixels(d.box)) for d in parsed.detections] == [(None, [1, 2, 3, 4])]
    assert parsed.truncated


@pytest.mark.parametrize(
    ("answer", "found", "truncated"),
    [
        ("EXIT" + locations(1, 2, 3, 4), ["EXIT"], False),
        (locations(1, 2, 3, 4), [None], False),
        ("EXIT", [], False),
        ("", [], False),
        ("EXIT" + locations(1, 2, 3), [], True),
        ("EXIT" + locations(1, 2, 3, 4, 5), [], True),
        (locations(1, 2, 3, 4) + "EXIT", [], True),
        ("EX" + locations(1, 2, 3, 4) + "IT" + locations(1, 2, 3, 4), [], True),
    ],
)
def test_text_about_a_region_has_that_region_behind_it_or_none(
    answer: str, found: list[str | None], truncated: bool
) -> None:
    parsed = told(answer, VOCABULARY.decode(tokens(answer)) if found != [None] else "")
    assert [d.label for d in parsed.detections] == found
    assert parsed.truncated == truncated


def test_points_are_centres_with_their_box() -> None:
    [point] = as_points(boxes("car" + locations(0, 100, 999, 300))).detections
    box = Box(0.0005, 0.1005, 0.9995, 0.3005)
    assert point == Detection("point", label="car", box=box, point=Point(0.5, (box.y_min + box.y_max) / 2))
    [polygon] = as_points(find(f"car<poly>{TRIANGLE}</poly>")).detections
    assert (polygon.kind, polygon.polygons, polygon.box) == ("point", None, Box(0.0015, 0.0015, 0.0095, 0.0095))
