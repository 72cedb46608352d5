"""Tasks of a body as the library has them: coordinates of either kind, normalised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.asgi.errors import encode
from router.config import RouterConfig
from router.conversation.fields import TaskBody
from router.conversation.tasks import read_task
from tests.images import data_url, oriented
from tests.router.world import SIZE, body, image_part, read_chat, user
from vlm.errors import InvalidRequest
from vlm.types import Box, Point, Task


def never() -> NoReturn:
    raise AssertionError("nothing is in pixels")


def read(task: dict[str, Any], size: Callable[[], tuple[int, int]] = lambda: SIZE, path: str = "task") -> Task:
    return read_task(TaskBody.model_validate(task), path, size)


def refused(task: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(task, path="tasks[2]")
    return caught.value


def test_every_argument_arrives() -> None:
    task = {
        "name": "detect",
        "labels": ["dog", "cat"],
        "text": "words",
        "region": {"box": [0, 0.25, 1, 0.5]},
        "length": "long",
        "max_objects": 1000,
        "threshold": 0.3,
        "reasoning": True,
        "references": [{"point": [0.5, 1]}, {"box": [0, 0, 0.5, 1]}],
    }
    assert read(task, never) == Task(
        "detect",
        labels=("dog", "cat"),
        text="words",
        region=Box(0, 0.25, 1, 0.5),
        length="long",
        max_objects=1000,
        threshold=0.3,
        reasoning=True,
        references=(Point(0.5, 1), Box(0, 0, 0.5, 1)),
    )
    assert read({"name": "detect"}, never) == Task("detect")


def test_pixels_are_normalised_by_the_image_size() -> None:
    task = {
        "name": "query",
        "region": {"box_px": [0, 120, 320, 480]},
        "references": [{"point_px": [160, 480]}, {"box_px": [640, 0, 640, 240.0]}],
    }
    assert read(task).region == Box(0, 0.25, 0.5, 1)
    assert read(task).references == (Point(0.25, 1), Box(1, 0, 1, 0.5))


@given(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), st.data())
def test_a_box_in_pixels_comes_back_as_the_pixels_it_was(size: tuple[int, int], data: st.DataObject) -> None:
    xs, ys = (sorted(data.draw(st.lists(st.floats(0, side), min_size=2, max_size=2))) for side in size)
    box = read({"name": "ocr", "region": {"box_px": [xs[0], ys[0], xs[1], ys[1]]}}, lambda: size).region
    assert box is not None
    assert 0 <= box.x_min <= box.x_max <= 1
    assert 0 <= box.y_min <= box.y_max <= 1
    assert [box.x_min * size[0], box.y_max * size[1]] == pytest.approx([xs[0], ys[1]])


@pytest.mark.parametrize(
    ("arguments", "param", "code", "message"),
    [
        ({"region": {}}, "region", "missing_required_parameter", "exactly one of: box, box_px"),
        ({"region": {"box": [0, 0, 1, 1], "box_px": [0, 0, 9, 9]}}, "region", "invalid_value", "exactly one"),
        ({"references": [{}]}, "references[0]", "missing_required_parameter", "box, box_px, point, point_px"),
        ({"references": [{"point": [0, 0], "box": [0, 0, 1, 1]}]}, "references[0]", "invalid_value", "exactly one"),
        ({"region": {"box": [0.5, 0, 0.1, 1]}}, "region.box", "invalid_value", "x1 <= x2"),
        ({"region": {"box_px": [0, 9, 5, 8]}}, "region.box_px", "invalid_value", "y1 <= y2"),
        ({"region": {"box_px": [0, 0, 646.5, 480]}}, "region.box_px", "invalid_value", "is 640 x 480 pixels"),
        ({"region": {"box_px": [0, 0, 5, -5]}}, "region.box_px", "invalid_value", "outside the image"),
        ({"region": {"box_px": [0, 0, 480, 640]}}, "region.box_px", "invalid_value", "outside the image"),
        ({"references": [{"point_px": [0, 485]}]}, "references[0].point_px", "invalid_value", "outside"),
        ({"references": [{"box_px": [647, 0, 648, 1]}]}, "references[0].box_px", "invalid_value", "outside"),
    ],
)
def test_bad_references_and_regions(arguments: dict[str, Any], param: str, code: str, message: str) -> None:
    error = refused({"name": "query", **arguments})
    assert (error.param, error.code) == (f"tasks[2].{param}", code)
    assert message in error.message


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ({"box": [-0.01, -0.001, 1.01, 1.0000001]}, Box(0, 0, 1, 1)),
        ({"box_px": [-6.4, -4.8, 646.4, 484.8]}, Box(0, 0, 1, 1)),
        ({"box_px": [640.4, 0, 646, 120]}, Box(1, 0, 1, 0.25)),
    ],
)
def test_a_hair_outside_the_image_is_its_edge(region: dict[str, Any], expected: Box) -> None:
    assert read({"name": "ocr", "region": region}, lambda: SIZE).region == expected


def test_a_pixel_outside_a_small_image_is_its_edge() -> None:
    task = read({"name": "query", "references": [{"point_px": [-1, 9]}]}, lambda: (8, 8))
    assert task.references == (Point(0, 1),)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_those_of_the_upright_image(orientation: int) -> None:
    width, height = SIZE if orientation < 5 else SIZE[::-1]
    whole = {"name": "ocr", "region": {"box_px": [0, 0, width, height]}}
    request = body(messages=[user(image_part(data_url(oriented(orientation, *SIZE), "image/jpeg")))], tasks=[whole])
    [task] = read_chat(encode(request), RouterConfig()).request.tasks
    assert task.region == Box(0, 0, 1, 1)
    whole["region"] = {"box_px": [0, 0, height, width]}
    with pytest.raises(InvalidRequest, match=f"which is {width} x {height} pixels when upright"):
        read_chat(encode(request), RouterConfig())
