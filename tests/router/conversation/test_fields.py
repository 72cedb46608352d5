"""Types and ranges of the fields that all conversations have, and the message for a wrong one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.asgi.validation import validated
from router.chat.schema import ChatBody
from router.conversation.fields import TaskBody
from tests.router.refused import assert_is_one_error, refused
from tests.router.world import body
from vlm.types import MAX_TASKS


def test_a_task_is_a_name_or_an_object() -> None:
    chat = validated(
        ChatBody, body(task="detect", tasks=["caption", {"name": "ocr"}])
    )  # request.py refuses both together
    assert chat.task == TaskBody(name="detect")
    assert chat.tasks == [TaskBody(name="caption"), TaskBody(name="ocr")]


def test_null_and_absent_are_the_same() -> None:
    given = ("task", "tasks", "num_beams", "length_penalty", "early_stopping")
    assert validated(ChatBody, {**body(), **dict.fromkeys(given)}) == validated(ChatBody, body())


@pytest.mark.parametrize(
    ("task", "code", "path"),
    [
        ({"name": "detect", "max_objects": 0}, "invalid_value", "max_objects"),
        ({"name": "detect", "max_objects": 1001}, "invalid_value", "max_objects"),
        ({"name": "detect", "max_objects": 2.5}, "invalid_type", "max_objects"),
        ({"name": "detect", "max_objects": True}, "invalid_type", "max_objects"),
        ({"name": "detect", "threshold": 1.01}, "invalid_value", "threshold"),
        ({"name": "detect", "threshold": "0.5"}, "invalid_type", "threshold"),
        ({"name": "query", "reasoning": 1}, "invalid_type", "reasoning"),
        ({"name": "query", "references": {"point": [0, 0]}}, "invalid_type", "references"),
        ({"name": "query", "references": [[0, 0]]}, "invalid_type", "references[0]"),
        ({"name": "query", "references": [{"point": [0.5]}]}, "invalid_value", "references[0].point"),
        ({"name": "query", "references": [{"point": [0, 0, 0]}]}, "invalid_value", "references[0].point"),
        ({"name": "query", "references": [{"box": [0, 0, 1, 2]}]}, "invalid_value", "references[0].box[3]"),
        ({"name": "query", "references": [{"circle": [0, 0]}]}, "unsupported_parameter", "references[0].circle"),
        ({"name": "query", "references": [{"point": [0, 0]}] * 65}, "invalid_value", "references"),
        ({"name": "ocr", "region": {"point": [0, 0]}}, "unsupported_parameter", "region.point"),
        ({"name": "ocr", "region": {"box_px": [0, 0, True, 3]}}, "invalid_type", "region.box_px[2]"),
        ({"name": "ocr", "region": {"box_px": [0, 0, float("inf"), 3]}}, "invalid_value", "region.box_px[2]"),
        ({"name": "ocr", "region": {"box_px": [0, 0, float("nan"), 3]}}, "invalid_value", "region.box_px[2]"),
    ],
)
def test_a_bad_argument_of_a_task_has_its_path(task: dict[str, Any], code: str, path: str) -> None:
    alone, among = refused(body(task=task)), refused(body(tasks=["caption", task]))
    assert (alone.code, alone.param) == (code, f"task.{path}")
    assert (among.code, among.param) == (code, f"tasks[1].{path}")


@pytest.mark.parametrize(
    ("tasks", "code", "param"),
    [
        ([], "invalid_value", "tasks"),
        (["caption"] * (MAX_TASKS + 1), "invalid_value", "tasks"),
        ("caption", "invalid_type", "tasks"),
        ({"name": "caption"}, "invalid_type", "tasks"),
        (["caption", 3], "invalid_type", "tasks[1]"),
        (["caption", None], "invalid_type", "tasks[1]"),
        (["caption", ""], "invalid_value", "tasks[1]"),
        (["caption", {"labels": ["dog"]}], "missing_required_parameter", "tasks[1].name"),
        (["caption", {"name": "detect", "labels": ["dog", ""]}], "invalid_value", "tasks[1].labels[1]"),
    ],
)
def test_bad_lists_of_tasks(tasks: object, code: str, param: str) -> None:
    error = refused(body(tasks=tasks))
    assert (error.code, error.param) == (code, param)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"task": {"name": "detect", "lables": ["dog"]}},
            "task.lables: is not supported; task takes: name, labels, text, region, length, max_objects, threshold, "
            "reasoning, references. Did you mean 'labels'?",
        ),
        (
            {"tasks": ["ocr", {"name": "ocr", "region": {"quad": []}}]},
            "tasks[1].region.quad: is not supported; tasks[1].region takes: box, box_px.",
        ),
        (
            {"task": {"name": "query", "references": [{"points": [0, 0]}]}},
            "task.references[0].points: is not supported; task.references[0] takes: box, box_px, point, point_px. "
            "Did you mean 'point'?",
        ),
        ({"task": {"name": "detect", "labels": ["a"] * 65}}, "task.labels: has more than 64 items."),
        ({"task": {"name": "detect", "labels": [""]}}, "task.labels[0]: must not be empty."),
        ({"task": {"name": "x" * 65}}, "task.name: has more than 64 characters."),
        ({"task": {"name": "ocr", "region": {"box": [0, 0, 1]}}}, "task.region.box: must have at least 4 items."),
        ({"task": {"name": "detect", "max_objects": 0}}, "task.max_objects: must be at least 1."),
        ({"task": {"name": "detect", "threshold": 1.5}}, "task.threshold: must be at most 1."),
        ({"tasks": []}, "tasks: must not be empty."),
        ({"stop": list("abcde")}, "stop: has more than 4 items."),
        ({"model": 3}, "model: must be a string."),
        ({"stream": "yes"}, "stream: must be true or false."),
    ],
)
def test_a_message_says_what_is_wrong_and_what_is_right(fields: dict[str, Any], message: str) -> None:
    assert refused({**body(), **fields}).message == message


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": [0] * 20_000},
        {"tasks": [0] * 20_000},
        {"tasks": [{"name": "detect", "labels": [0] * 20_000}]},
        {"tasks": [{"name": "detect", "labels": [0] * 64, "references": [0] * 64}] * 16},
        {"task": {"name": "query", "references": [0] * 20_000}},
        {"task": {"name": "query", "references": [{"point": [""] * 20_000}]}},
        {"task": {"name": "ocr", "region": {"box": [""] * 20_000}}},
        {"task": {"name": "ocr", "region": {"box_px": [-1] * 20_000}}},
    ],
    ids=json.dumps,
)
def test_a_long_list_of_bad_items_is_one_error(fields: dict[str, Any]) -> None:
    assert_is_one_error({**body(), **fields})
