"""Moondream's routes answer as the library does, and as the original code does with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.images import data_url
from tests.router.moondream.asking import corners_of, read_stream
from tests.router.moondream.conftest import World
from tests.vlm.models.moondream2.driver import cases, golden_image
from vlm.types import Box, Completion, Request, Sampling, Task

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]

SMALL = golden_image("small_224x160")
SHAPES = (ROOT / "examples/circle-and-square.png").read_bytes()
ORIGINAL = {case["id"]: case for case in cases()}
QUESTION = "is there a dog"
FLORENCE = "florence-2-base"


def body_of(image: bytes | None = SMALL, **fields: Any) -> Json:
    return ({} if image is None else {"image_url": data_url(image)}) | fields


def ask(world: World, route: str, image: bytes | None = SMALL, **fields: Any) -> Json:
    answer = httpx.post(f"{world.url}/v1/{route}", json=body_of(image, **fields), timeout=60)
    assert answer.status_code == 200, answer.text
    whole: Json = answer.json()
    return whole


def lines(world: World, route: str, image: bytes | None = SMALL, **fields: Any) -> list[str]:
    body = body_of(image, **fields, stream=True)
    with httpx.stream("POST", f"{world.url}/v1/{route}", json=body, timeout=60) as answer:
        return list(answer.iter_lines())


def library(world: World, task: Task, model: str = "moondream-2", image: bytes = SMALL, **sampling: Any) -> Completion:
    return world.engines[model].answer(Request(image, task=task, sampling=Sampling(**sampling), stream=False))


def asked_of_the_original(case: str) -> tuple[bytes | None, Json, Json]:
    """(image, the arguments as a body, the result) of one of the original's calls."""
    found = ORIGINAL[case]
    image = None if found["image"] is None else golden_image(found["image"])
    return image, found["args"], found["result"]


# The original


@pytest.mark.parametrize("case", ["c00", "c01", "c02", "c03", "c06"])
def test_a_caption_is_the_originals(world: World, case: str) -> None:
    image, arguments, result = asked_of_the_original(case)
    answer = ask(world, "caption", image, **arguments)
    assert answer["caption"] == result["caption"].strip()
    assert answer["x_gigarouter"]["ignored"] == []


@pytest.mark.parametrize("case", ["c09", "c11", "c15", "c28", "c33", "c34"])
def test_an_answer_is_the_originals_also_about_locations(world: World, case: str) -> None:
    image, arguments, result = asked_of_the_original(case)
    answer = ask(world, "query", image, **arguments)
    assert answer["answer"] == result["answer"].strip()
    assert "reasoning" not in answer


@pytest.mark.parametrize("case", ["c14", "c30"])
def test_reasoning_is_the_originals_to_the_last_point(world: World, case: str) -> None:
    image, arguments, result = asked_of_the_original(case)
    arguments = {**arguments, "settings": {"temperature": 0, "max_tokens": 97}}  # here reasoning counts too
    answer = ask(world, "query", image, **arguments)
    assert answer["reasoning"] == result["reasoning"]
    assert answer["answer"].startswith(result["answer"].strip())


@pytest.mark.parametrize("case", ["c37", "c39", "c41", "c43"])
def test_boxes_are_the_originals_within_the_image(world: World, case: str) -> None:
    image, arguments, result = asked_of_the_original(case)
    clipped = [
        {name: pytest.approx(min(1, max(0, value)), abs=1e-7) for name, value in one.items()}
        for one in result["objects"]
    ]
    assert ask(world, "detect", image, **arguments)["objects"] == clipped


@pytest.mark.parametrize("case", ["c38", "c40", "c42", "c44"])
def test_points_are_the_originals(world: World, case: str) -> None:
    image, arguments, result = asked_of_the_original(case)
    answer = ask(world, "point", image, **arguments)
    assert answer["points"] == result["points"]
    assert answer["count"] == len(result["points"])


# The library


@pytest.mark.parametrize("length", ["short", "normal", "long"])
def test_a_caption_is_the_librarys(world: World, length: Any) -> None:
    expected = library(world, Task("caption", length=length), max_tokens=20)
    answer = ask(world, "caption", length=length, settings={"max_tokens": 20})
    assert (answer["caption"], answer["finish_reason"]) == (expected.text, expected.finish_reason)
    assert answer["metrics"]["output_tokens"] == expected.usage.completion_tokens
    assert answer["metrics"]["input_tokens"] == expected.usage.image_tokens + expected.usage.text_tokens


def test_sampled_answers_differ_and_greedy_ones_do_not(world: World) -> None:
    settings = {"temperature": 2.0, "top_p": 1.0, "max_tokens": 20}
    assert len({ask(world, "caption", settings=settings)["caption"] for _ in range(4)}) > 1
    assert len({ask(world, "caption", settings=settings | {"temperature": 0})["caption"] for _ in range(4)}) == 1


def test_objects_are_the_librarys_to_the_last_digit(world: World) -> None:
    expected = library(world, Task("detect", labels=("dog",), max_objects=5)).grounding.detections
    objects = ask(world, "detect", object="dog", settings={"max_objects": 5})["objects"]
    assert len(objects) == 5
    boxes = [found.box for found in expected if found.box]
    assert objects == [{name: getattr(box, name) for name in ("x_min", "y_min", "x_max", "y_max")} for box in boxes]


@pytest.mark.parametrize(("route", "key"), [("caption", "caption"), ("query", "answer")])
def test_the_pieces_of_a_stream_are_the_whole(world: World, route: str, key: str) -> None:
    fields: Json = {"settings": {"max_tokens": 40}} | ({"question": QUESTION} if route == "query" else {})
    pieces = list(read_stream(lines(world, route, **fields)))
    assert "".join(pieces) == ask(world, route, **fields)[key]
    assert pieces[-1] == ""


def test_reasoning_is_streamed_beside_the_answer(world: World) -> None:
    fields: Json = {"question": QUESTION, "reasoning": True, "settings": {"max_tokens": 97}}
    whole, streamed = ask(world, "query", **fields), lines(world, "query", **fields)
    sent = [json.loads(line.removeprefix("data: ")) for line in streamed if line.startswith("data: ")]
    assert "".join(read_stream(streamed)) == whole["answer"]
    assert "".join(one.get("reasoning_chunk", "") for one in sent) == whole["reasoning"]["text"]
    assert sent[-1]["reasoning"] == whole["reasoning"]
    assert sent[-1]["finish_reason"] == whole["finish_reason"]


def test_pointing_does_not_use_locations_and_says_so(world: World) -> None:
    answer = ask(world, "point", object="dog", spatial_refs=[[0.5, 0.5]], settings={"max_objects": 2, "max_tokens": 99})
    assert len(answer["points"]) == 2
    assert answer["x_gigarouter"]["ignored"] == ["spatial_refs"]


def test_a_reference_without_an_image_is_refused(world: World) -> None:
    body = {"question": QUESTION, "spatial_refs": [[0.5, 0.5]]}
    answer = httpx.post(f"{world.url}/v1/query", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "image_url"


# Other models


@pytest.mark.parametrize(
    ("route", "fields", "others"),
    [
        ("segment", {"object": "red circle"}, "florence-2-base"),
        ("query", {"question": QUESTION, "model": "florence-2-base"}, "kosmos-2, moondream-2"),
    ],
)
def test_a_task_that_a_model_lacks(world: World, route: str, fields: Json, others: str) -> None:
    answer = httpx.post(f"{world.url}/v1/{route}", json=body_of(**fields))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_task", "model")
    assert error["message"].endswith(f"Name a model that has it as model: {others}.")


def test_another_model_detects_and_points(world: World) -> None:
    fields: Json = {"model": FLORENCE, "object": "circle"}
    objects = ask(world, "detect", SHAPES, **fields)["objects"]
    expected = library(world, Task("detect", labels=("circle",)), FLORENCE, SHAPES).grounding.detections
    assert objects
    assert [tuple(one.values()) for one in objects] == [
        (found.box.x_min, found.box.y_min, found.box.x_max, found.box.y_max) for found in expected if found.box
    ]
    points = ask(world, "point", SHAPES, **fields)["points"]
    middles = [((one["x_min"] + one["x_max"]) / 2, (one["y_min"] + one["y_max"]) / 2) for one in objects]
    assert [(one["x"], one["y"]) for one in points] == [pytest.approx(middle) for middle in middles]


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({"object": "red circle"}, Task("segment", text="red circle")),
        ({"object": "", "spatial_refs": [[0.1, 0.1, 0.5, 0.9]]}, Task("segment", region=Box(0.1, 0.1, 0.5, 0.9))),
    ],
)
def test_another_model_segments(world: World, fields: Json, task: Task) -> None:
    answer = ask(world, "segment", SHAPES, model=FLORENCE, **fields)
    detections = library(world, task, FLORENCE, SHAPES).grounding.detections
    polygons = [polygon for found in detections for polygon in found.polygons or ()]
    assert polygons
    drawn = [corner for shape in corners_of(answer) for corner in shape]
    expected = [(corner.x, corner.y) for polygon in polygons for corner in polygon]
    assert drawn == [pytest.approx(corner, abs=1e-6) for corner in expected]
    streamed = lines(world, "segment", SHAPES, model=FLORENCE, **fields)
    final = json.loads(streamed[-2].removeprefix("data: "))
    assert (final["path"], final["bbox"]) == (answer["path"], answer["bbox"])


@pytest.mark.parametrize("route", ["detect", "point"])
def test_settings_for_tokens_make_no_difference_to_locations_and_are_reported(world: World, route: str) -> None:
    answer = ask(world, route, object="dog", settings={"temperature": 1.5, "top_p": 0.3, "max_objects": 3})
    plain = ask(world, route, object="dog", settings={"max_objects": 3, "temperature": 0, "top_p": 1})
    assert answer["x_gigarouter"]["ignored"] == ["settings.temperature", "settings.top_p"]
    assert plain["x_gigarouter"]["ignored"] == []
    found = {"detect": "objects", "point": "points"}[route]
    assert answer[found] == plain[found]
