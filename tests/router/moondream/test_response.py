"""Answers in Moondream's JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from router.config import RouterConfig
from router.moondream.format import MoondreamFormat
from router.moondream.response import metrics_json, reasoning_json, segment_json
from tests.router.moondream.asking import ALL, JPEG, box, corners_of, found, point, polygon
from tests.router.world import words
from vlm.types import Completion, Timings, Usage

Json = dict[str, Any]
BESIDE = {"request_id", "finish_reason", "metrics", "x_gigarouter"}


def answered(route: str, completion: Completion, **fields: Any) -> Json:
    """The body of the answer, and beside it what every answer has."""
    moondream = MoondreamFormat(route, RouterConfig())
    body = json.dumps(ALL[route] | fields).encode()
    return moondream.build(moondream.parse(body), [JPEG], "req_1").response_json(completion)


@pytest.mark.parametrize(("route", "key"), [("caption", "caption"), ("query", "answer")])
def test_a_text(route: str, key: str) -> None:
    answer = answered(route, words("a red square"))
    assert answer.keys() == BESIDE | {key}
    assert (answer[key], answer["request_id"], answer["finish_reason"]) == ("a red square", "req_1", "stop")


def test_boxes_are_those_of_the_library_to_the_last_digit() -> None:
    third = 1 / 3
    answer = answered("detect", found(box(0.1, 0.2, 0.5, 0.6), box(0, third, 0.0009765625, 1)))
    assert answer.keys() == BESIDE | {"objects"}
    assert answer["objects"] == [
        {"x_min": 0.1, "y_min": 0.2, "x_max": 0.5, "y_max": 0.6},
        {"x_min": 0, "y_min": third, "x_max": 0.0009765625, "y_max": 1},
    ]


def test_points_and_their_number() -> None:
    answer = answered("point", found(point(0.25, 1 / 3), point(0, 1)))
    assert answer.keys() == BESIDE | {"points", "count"}
    assert answer["points"] == [{"x": 0.25, "y": 1 / 3}, {"x": 0, "y": 1}]
    assert answer["count"] == 2


def test_nothing_is_found() -> None:
    assert answered("detect", found())["objects"] == []
    assert answered("point", found())["points"] == []
    assert answered("point", found())["count"] == 0
    nothing = answered("segment", found())
    assert (nothing["path"], nothing["bbox"]) == ("", None)


# Reasoning


def test_reasoning_has_the_points_of_each_of_its_parts() -> None:
    detections = (point(0.1, 0.2, 0, 5), point(0.3, 0.4, 0, 5), point(0.5, 0.6, 9, 14))
    answer = answered("query", found(*detections, reasoning="a car, and a dog"))
    assert answer.keys() == BESIDE | {"answer", "reasoning"}
    assert answer["reasoning"] == {
        "text": "a car, and a dog",
        "grounding": [
            {"start_idx": 0, "end_idx": 5, "points": [[0.1, 0.2], [0.3, 0.4]]},
            {"start_idx": 9, "end_idx": 14, "points": [[0.5, 0.6]]},
        ],
    }


def test_reasoning_without_points_and_no_reasoning() -> None:
    assert reasoning_json(found(reasoning="").grounding) == {"reasoning": {"text": "", "grounding": []}}
    assert reasoning_json(found(point(0.1, 0.2)).grounding) == {}


# Segmentation


def test_a_path_is_from_0_to_1_of_its_box() -> None:
    answer = segment_json(found(polygon(((0.2, 0.4), (0.6, 0.4), (0.5, 0.8)))).grounding)
    assert answer == {
        "path": "M 0 0 L 1 0 L 0.75 1 Z",
        "bbox": {"x_min": 0.2, "y_min": 0.4, "x_max": 0.6, "y_max": 0.8},
    }


def test_the_corners_of_several_polygons_can_be_read_from_the_path() -> None:
    shapes = [((0.123456, 0.2), (0.3, 0.21), (0.2, 0.4)), ((0.7, 0.1), (0.9, 0.1), (0.9, 0.333333), (0.7, 0.5))]
    answer = answered("segment", found(polygon(*shapes)))
    assert answer.keys() == BESIDE | {"path", "bbox"}
    assert answer["path"].count("M") == answer["path"].count("Z") == 2
    drawn = corners_of(answer)
    assert [len(shape) for shape in drawn] == [3, 4]
    for shape, expected in zip(drawn, shapes, strict=True):
        for corner, right in zip(shape, expected, strict=True):
            assert corner == pytest.approx(right, abs=1e-6)


def test_objects_without_an_outline_are_left_out_and_a_flat_one_is_drawn() -> None:
    assert segment_json(found(box(0.1, 0.2, 0.5, 0.6)).grounding) == {"path": "", "bbox": None}
    flat = segment_json(found(polygon(((0.5, 0.25), (0.5, 0.75)))).grounding)
    assert flat["path"] == "M 0 0 L 0 1 Z"


# What stands beside every answer


def test_metrics_are_tokens_and_times() -> None:
    timings = Timings(prepare_ms=10, queue_ms=2, first_token_ms=7, total_ms=40.12345)
    completion = replace(words(), usage=Usage(730, 5, 45), timings=timings)
    assert metrics_json(completion) == {
        "input_tokens": 735,
        "output_tokens": 45,
        "prefill_time_ms": 5,
        "decode_time_ms": 23.123,
        "ttft_ms": 17,
    }


def test_our_own_keys_say_what_was_ignored() -> None:
    completion = replace(words(), ignored=("task.length",), finish_reason="length", resolution="task")
    answer = answered("caption", completion, length="short", user="kim")
    assert answer["finish_reason"] == "length"
    ours = answer["x_gigarouter"]
    assert ours["ignored"] == ["user", "length"]
    assert (ours["request_id"], ours["task_resolution"], ours["image_cache"]) == ("req_1", "task", "miss")
