"""The same objects in other formats: hand-computed numbers for an image of 200 x 100 pixels."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from tests.vlm.test_grounding_json import groundings
from vlm.grounding_formats import FORMATS, render
from vlm.types import Box, Detection, Grounding, Point

BOX = Detection("box", label="dog", score=0.123456, box=Box(0.1, 0.2, 0.5, 0.6))
POINT = Detection("point", label="kite", point=Point(0.25, 0.75))
QUAD = Detection(
    "quad", text="EXIT", box=Box(0.1, 0.2, 0.3, 0.4),
    quad=(Point(0.1, 0.2), Point(0.3, 0.2), Point(0.3, 0.4), Point(0.1, 0.4)),
)  # fmt: skip
POLYGON = Detection(
    "polygon", label="leaf", box=Box(0, 0, 0.5, 1), polygons=((Point(0, 0), Point(0.5, 0), Point(0.5, 1)),)
)


def rendered(name: str, *detections: Detection) -> Any:
    return render(Grounding("detect", "<OD>", None, (200, 100), detections), name)


def roboflow(**prediction: Any) -> Any:
    return {"image": {"width": 200, "height": 100}, "predictions": [prediction]}


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("moondream", BOX, {"objects": [{"x_min": 0.1, "y_min": 0.2, "x_max": 0.5, "y_max": 0.6, "label": "dog"}]}),
        ("moondream", POINT, {"points": [{"x": 0.25, "y": 0.75, "label": "kite"}]}),
        ("qwen", BOX, [{"bbox_2d": [20, 20, 100, 60], "label": "dog"}]),
        ("qwen", POINT, [{"point_2d": [50, 75], "label": "kite"}]),
        ("qwen", QUAD, [{"bbox_2d": [20, 20, 60, 40], "label": "EXIT"}]),
        ("lmms-eval", BOX, [{"bbox_2d": [100, 200, 500, 600], "label": "dog"}]),
        ("lmms-eval", POINT, [{"point_2d": [250, 750], "label": "kite"}]),
        (
            "roboflow", BOX,
            roboflow(x=60.0, y=40.0, width=80.0, height=40.0, confidence=0.1235, **{"class": "dog"}),
        ),
        (
            "roboflow", POINT,
            roboflow(x=50.0, y=75.0, width=0.0, height=0.0, confidence=None, **{"class": "kite"}),
        ),
        (
            "roboflow", POLYGON,
            roboflow(
                x=50.0, y=50.0, width=100.0, height=100.0, confidence=None, **{"class": "leaf"},
                points=[{"x": 0.0, "y": 0.0}, {"x": 100.0, "y": 0.0}, {"x": 100.0, "y": 100.0}],
            ),
        ),
        (
            "coco", BOX,
            [{"id": 0, "image_id": 0, "category": "dog", "bbox": [20.0, 20.0, 80.0, 40.0], "score": 0.1235}],
        ),
        (
            "coco", QUAD,
            [{"id": 0, "image_id": 0, "category": "EXIT", "bbox": [20.0, 20.0, 40.0, 20.0], "score": None,
              "segmentation": [[20.0, 20.0, 60.0, 20.0, 60.0, 40.0, 20.0, 40.0]]}],
        ),
        ("florence", POINT, {"points": [[50.0, 75.0]], "labels": ["kite"]}),
        ("florence", BOX, {"bboxes": [[20.0, 20.0, 100.0, 60.0]], "labels": ["dog"]}),
        (
            "florence", QUAD,
            {"quad_boxes": [[20.0, 20.0, 60.0, 20.0, 60.0, 40.0, 20.0, 40.0]], "labels": ["EXIT"]},
        ),
        (
            "florence", POLYGON,
            {"polygons": [[[0.0, 0.0, 100.0, 0.0, 100.0, 100.0]]], "labels": ["leaf"]},
        ),
    ],
)  # fmt: skip
def test_hand_computed_numbers(name: str, found: Detection, expected: Any) -> None:
    assert rendered(name, found) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("moondream", {"objects": []}),
        ("qwen", []),
        ("roboflow", {"image": {"width": 200, "height": 100}, "predictions": []}),
        ("coco", []),
        ("florence", {"bboxes": [], "labels": []}),
        ("lmms-eval", []),
    ],
)
def test_nothing_found(name: str, expected: Any) -> None:
    assert rendered(name) == expected


def test_the_order_is_that_of_the_objects() -> None:
    assert [one["label"] for one in rendered("qwen", BOX, QUAD, POINT)] == ["dog", "EXIT", "kite"]
    assert rendered("florence", BOX, BOX)["labels"] == ["dog", "dog"]


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(grounding=groundings)
def test_every_grounding_has_every_format_as_json(name: str, grounding: Grounding) -> None:
    assert json.dumps(render(grounding, name), allow_nan=False)


def test_coco_has_every_object_once() -> None:
    assert len(rendered("coco", BOX, POINT, QUAD, POLYGON)) == 4


def test_nothing_is_left_out_of_a_mixture() -> None:
    mixture = (POINT, BOX)
    moondream = rendered("moondream", *mixture)
    assert moondream == rendered("moondream", BOX) | rendered("moondream", POINT)
    florence = rendered("florence", *mixture)
    assert (florence["bboxes"], florence["points"]) == ([[20.0, 20.0, 100.0, 60.0]], [[50.0, 75.0]])
    assert florence["labels"] == ["dog", "kite"]
