"""What a conversation asks for is known, and refused if it is too much, before its images are there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.chat.request import parse_chat
from router.config import RouterConfig
from router.conversation.request import demand_of
from tests.router.world import FakeBackend, body, check_error, image_part, post, text_part, user
from vlm.generations import MAX_GENERATIONS

pytestmark = pytest.mark.anyio

MANY = [f"thing {number}" for number in range(MAX_GENERATIONS)]
NOWHERE = image_part("data:image/png;base64,AAAA")


def several(images: int, text: str = "?") -> dict[str, Any]:
    return {"messages": [user(*[image_part()] * images, text_part(text))]}


@pytest.mark.parametrize(
    ("fields", "generations", "beams"),
    [
        ({}, 1, None),
        ({"n": 3}, 3, None),
        ({"num_beams": 5}, 1, 5),
        ({"task": "detect"}, 1, None),
        ({"task": {"name": "detect", "labels": ["a", "b", "a"]}}, 2, None),
        ({"task": {"name": "ground", "labels": ["a", "b"]}}, 1, None),
        ({"task": {"name": "detect", "labels": ["a", "b"], "region": {"box_px": [0, 0, 9, 9]}}}, 2, None),
        ({"tasks": ["caption", {"name": "point", "labels": ["a", "b"]}]}, 3, None),
        ({"tasks": ["caption", "ocr"], **several(3)}, 6, None),
        (several(3), 3, None),
        ({"model": "florence-2-base:detect", **several(1, "a, b\nc")}, 3, None),
        ({"model": "florence-2-base:caption", **several(1, "a, b\nc")}, 1, None),
    ],
)
def test_generations_are_counted_as_the_engine_does(
    fields: dict[str, Any], generations: int, beams: int | None
) -> None:
    asked = {**body(), "model": "florence-2-base", **fields}
    demand = demand_of(parse_chat(json.dumps(asked).encode(), RouterConfig()), RouterConfig())
    assert (demand.model, demand.generations, demand.beams) == ("florence-2-base", generations, beams)


@pytest.mark.parametrize(
    ("fields", "images", "tasks", "max_tokens"),
    [
        ({}, 1, (), None),
        ({"max_tokens": 9, **several(3)}, 3, (), 9),
        ({"task": {"name": "detect", "labels": ["a", "b"]}}, 1, ("detect",), None),
        ({"tasks": ["caption", "ocr"]}, 1, ("caption", "ocr"), None),
        ({"model": "florence-2-base:ocr"}, 1, ("ocr",), None),
        (several(1, "<OCR>"), 1, (), None),
        ({"task": "detect", **several(1, "<OCR>")}, 1, ("detect",), None),
    ],
)
def test_what_it_can_cost_is_known(
    fields: dict[str, Any], images: int, tasks: tuple[str, ...], max_tokens: int | None
) -> None:
    asked = {**body(), "model": "florence-2-base", **fields}
    demand = demand_of(parse_chat(json.dumps(asked).encode(), RouterConfig()), RouterConfig())
    assert (demand.images, demand.tasks, demand.max_tokens) == (images, tasks, max_tokens)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"task": {"name": "detect", "labels": MANY}, "messages": [user(NOWHERE, NOWHERE)]}, "task.labels"),
        ({"tasks": ["caption", {"name": "detect", "labels": MANY}], "messages": [user(NOWHERE)]}, "tasks"),
        ({"tasks": ["caption", "ocr"], "n": 2, "messages": [user(NOWHERE)]}, "n"),
        (
            {"model": "florence-2-base:detect", "messages": [user(NOWHERE, text_part(f"{', '.join(MANY)}, more"))]},
            "messages[0].content",
        ),
    ],
)
async def test_more_than_is_answered_together_is_refused_before_an_image_is_loaded(
    fields: dict[str, Any], param: str
) -> None:
    backend = FakeBackend()
    check_error(await post(backend, {**body(), "model": "florence-2-base", **fields}), 400, "invalid_value", param)
    assert not backend.asked
