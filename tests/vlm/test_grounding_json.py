"""The published grounding object: its invariants for any grounding, and one whole example."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.grounding_json import objects_json, to_json
from vlm.types import Box, Detection, Grounding, Point

SHAPES = ("box", "point", "quad", "polygons")
KEYS = {"id", "image", "kind", "label", "text", "score", "score_type", "confidence", "spans", "answers", "consensus"}
KEYS |= {*SHAPES, *(f"{s}_px" for s in SHAPES)}

units = st.floats(0, 1)
points = st.builds(Point, units, units)
quads = st.tuples(points, points, points, points)
polygons = st.lists(points, min_size=3, max_size=6).map(tuple)
labels = st.none() | st.text(max_size=8)
sizes = st.tuples(st.integers(1, 40_000), st.integers(1, 40_000))


def _box(label: str | None, corners: tuple[Point, ...], score: float | None) -> Detection:
    return Detection("box", label=label, box=Box.spanning(corners), score=score)


def _quad(text: str | None, quad: tuple[Point, ...]) -> Detection:
    return Detection("quad", text=text, quad=quad, box=Box.spanning(quad), spans=((0, 1),))


def _polygons(label: str | None, shapes: list[tuple[Point, ...]]) -> Detection:
    corners = tuple(corner for shape in shapes for corner in shape)
    return Detection("polygon", label=label, polygons=tuple(shapes), box=Box.spanning(corners))


detections = st.one_of(
    st.builds(_box, labels, st.tuples(points, points), st.none() | units),
    st.builds(lambda label, point: Detection("point", label=label, point=point), labels, points),
    st.builds(_quad, labels, quads),
    st.builds(_polygons, labels, st.lists(polygons, min_size=1, max_size=3)),
)
groundings = st.builds(
    Grounding,
    task=st.just("detect"),
    native_task=st.just("<OD>"),
    text=labels,
    image_size=sizes,
    detections=st.lists(detections, max_size=5).map(tuple),
    truncated=st.booleans(),
    raw=st.text(max_size=8),
    reasoning=labels,
)


def _numbers(shape: Any) -> list[float]:
    return [number for part in shape for number in _numbers(part)] if isinstance(shape, list) else [shape]


def _axes(name: str, shape: Any) -> list[tuple[float, int]]:
    """Every coordinate with its axis: 0 for x, 1 for y."""
    return [(number, index % 2) for index, number in enumerate(_numbers(shape))]


@given(groundings)
def test_every_object_has_every_key_and_ids_count_from_zero(grounding: Grounding) -> None:
    objects = to_json(grounding)["objects"]
    assert [found["id"] for found in objects] == list(range(len(grounding.detections)))
    assert all(set(found) == KEYS for found in objects)


@given(groundings)
def test_normalised_coordinates_are_within_the_unit_square_and_boxes_are_ordered(grounding: Grounding) -> None:
    for found in to_json(grounding)["objects"]:
        for name in SHAPES:
            if found[name] is not None:
                assert all(0 <= number <= 1 for number in _numbers(found[name]))
        if found["box"] is not None:
            x_min, y_min, x_max, y_max = found["box"]
            assert x_min <= x_max
            assert y_min <= y_max
        assert (found["box"] is None) == (found["kind"] == "point")


@given(groundings)
def test_pixels_are_the_normalised_coordinates_times_the_size(grounding: Grounding) -> None:
    size = grounding.image_size or (0, 0)
    for found in to_json(grounding)["objects"]:
        for name in SHAPES:
            assert (found[name] is None) == (found[f"{name}_px"] is None)
            if found[name] is None:
                continue
            for (unit, axis), (pixel, _) in zip(
                _axes(name, found[name]), _axes(name, found[f"{name}_px"]), strict=True
            ):
                assert abs(pixel - unit * size[axis]) <= 0.005 + 0.5e-6 * size[axis] + 1e-9
                assert pixel == round(pixel, 2)
                assert unit == round(unit, 6)


@given(groundings)
def test_an_object_without_a_score_has_null(grounding: Grounding) -> None:
    for found, source in zip(to_json(grounding)["objects"], grounding.detections, strict=True):
        assert found["score"] == (None if source.score is None else pytest.approx(source.score, rel=0.001))
        assert found["score_type"] == (None if source.score is None else "token_prob")


@given(groundings)
def test_the_compact_objects_hold_the_same_values_without_nulls(grounding: Grounding) -> None:
    whole, compact = to_json(grounding)["objects"], objects_json(grounding)["objects"]
    for full, short in zip(whole, compact, strict=True):
        assert None not in short.values()
        assert short.items() <= full.items()
        assert all(name in short for name in SHAPES if full[name] is not None)


@given(groundings, st.booleans())
def test_it_is_json_and_raw_comes_only_when_asked_for(grounding: Grounding, include_raw: bool) -> None:
    answer = to_json(grounding, include_raw=include_raw)
    assert json.loads(json.dumps(answer)) == answer
    assert answer["raw"] == (grounding.raw if include_raw else None)
    assert (answer["text"], answer["reasoning"]) == (grounding.text, grounding.reasoning)


@given(groundings, st.lists(groundings, max_size=3), st.booleans())
def test_parts_are_objects_of_the_same_shape(first: Grounding, parts: list[Grounding], include_raw: bool) -> None:
    answer = to_json(first, include_raw=include_raw, parts=parts)
    assert answer["parts"] == [to_json(part, include_raw=include_raw) for part in parts]
    assert {**answer, "parts": []} == to_json(first, include_raw=include_raw)


def test_scores_keep_four_significant_digits_however_small() -> None:
    boxes = (Detection("box", score=score, box=Box(0, 0, 1, 1)) for score in (1.0, 0.031853676760954415, 3.7395483e-05))
    answer = to_json(Grounding("detect", "<OD>", None, (8, 8), tuple(boxes)))
    assert [found["score"] for found in answer["objects"]] == [1.0, 0.03185, 3.74e-05]


def test_a_whole_example() -> None:
    dog = Detection("box", label="dog", score=0.87, box=Box(0.1, 0.2, 0.5, 0.6), spans=((2, 5),))
    assert to_json(Grounding("detect", "<OD>", None, (640, 480), (dog,))) == {
        "version": "1",
        "task": "detect",
        "native_task": "<OD>",
        "text": None,
        "reasoning": None,
        "images": [{"width": 640, "height": 480}],
        "objects": [
            {
                "id": 0,
                "image": 0,
                "kind": "box",
                "label": "dog",
                "text": None,
                "score": 0.87,
                "score_type": "token_prob",
                "confidence": None,
                "box": [0.1, 0.2, 0.5, 0.6],
                "box_px": [64.0, 96.0, 320.0, 288.0],
                "point": None,
                "point_px": None,
                "quad": None,
                "quad_px": None,
                "polygons": None,
                "polygons_px": None,
                "spans": [[2, 5]],
                "answers": None,
                "consensus": None,
            }
        ],
        "truncated": False,
        "below_threshold": 0,
        "raw": None,
        "parts": [],
    }


def test_the_compact_example() -> None:
    dog = Detection("box", label="dog", score=0.87, box=Box(0.1, 0.2, 0.5, 0.6))
    assert objects_json(Grounding("detect", "<OD>", None, (640, 480), (dog,))) == {
        "objects": [{"label": "dog", "box": [0.1, 0.2, 0.5, 0.6], "box_px": [64.0, 96.0, 320.0, 288.0], "score": 0.87}]
    }


def test_nothing_found_is_an_empty_list() -> None:
    nothing = Grounding("detect", "<OD>", None, (8, 8))
    assert to_json(nothing)["objects"] == []
    assert objects_json(nothing) == {"objects": []}


def test_without_an_image_there_are_no_pixels() -> None:
    answer = to_json(Grounding("query", "", "yes", None, (Detection("point", point=Point(0.5, 0.25)),)))
    assert answer["images"] == []
    assert answer["objects"][0]["point"] == [0.5, 0.25]
    assert answer["objects"][0]["point_px"] is None


def test_a_score_of_0_and_an_empty_text_are_values() -> None:
    """Only what is null is left out of the compact form."""
    found = Detection("point", label="", text="", point=Point(0, 0), score=0.0)
    grounding = Grounding("point", "point", None, (640, 480), (found,))
    assert objects_json(grounding) == {
        "objects": [{"label": "", "text": "", "point": [0.0, 0.0], "point_px": [0.0, 0.0], "score": 0.0}]
    }
    [whole] = to_json(grounding)["objects"]
    assert (whole["score"], whole["score_type"], whole["text"]) == (0.0, "token_prob", "")
