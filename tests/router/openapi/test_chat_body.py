"""The schema of a chat request: real clients' bodies fit it, and its ranges are those that are checked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.chat.request import parse_chat
from router.chat.schema import ChatBody
from router.config import RouterConfig
from router.conversation.fields import TaskBody
from router.conversation.ignored import IMPOSSIBLE
from router.conversation.tools import TOOL_FIELDS
from tests.router import clients
from tests.router.openapi.documents import Json, served, validator
from tests.router.world import body, image_part, user
from vlm.errors import InvalidRequest
from vlm.sampling import Sampling

REQUEST = "ChatCompletionRequest"
CLIENTS = [
    clients.open_webui("What is this?"),
    clients.open_webui_later("And this?"),
    clients.langchain_agent(),
    clients.litellm(),
    clients.docling("Describe this."),
    clients.home_assistant(),
    body("<OD>", stop="a", logit_bias={"17": -100}, task={"name": "detect", "labels": None, "length": None}),
    body(tasks=["caption", {"name": "detect", "region": {"box": [0, 0, 1, 1], "box_px": None}}], n=1),
    body(**dict.fromkeys([name for name in ChatBody.model_fields if name not in {"model", "messages"}])),
]


def properties() -> Json:
    schema: Json = served()["components"]["schemas"][REQUEST]["properties"]
    return schema


@pytest.mark.parametrize("request_body", CLIENTS)
def test_what_clients_send_fits(request_body: Json) -> None:
    validator(REQUEST).validate(request_body)
    parse_chat(json.dumps(request_body).encode(), RouterConfig())


def test_it_has_the_fields_that_are_read_and_those_that_are_known() -> None:
    assert properties().keys() == {*ChatBody.model_fields, *IMPOSSIBLE, *TOOL_FIELDS}


@pytest.mark.parametrize("kind", [ChatBody, TaskBody])
def test_every_field_says_what_it_means(kind: Any) -> None:
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


NUMBERS = [
    (name, schema)
    for name, field in sorted(properties().items())
    for schema in field.get("anyOf", [])
    if schema.get("type") in {"number", "integer"} and hasattr(Sampling(), name)
]


def accepts(name: str, value: float) -> bool:
    fields: Any = {"logprobs": True, name: value}
    try:
        Sampling(**fields)
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize(("name", "schema"), NUMBERS, ids=[name for name, _ in NUMBERS])
def test_ranges_are_those_of_the_engine(name: str, schema: Json) -> None:
    if name == "seed":
        return  # any; 64 bits are what crosses to the engine
    step = 1 if schema["type"] == "integer" else 1e-6
    for bound, sign in (("minimum", -1), ("maximum", 1)):
        if bound in schema:
            assert accepts(name, schema[bound])
            assert not accepts(name, schema[bound] + sign * step)
    if "exclusiveMinimum" in schema:
        assert accepts(name, schema["exclusiveMinimum"] + step)
        assert not accepts(name, schema["exclusiveMinimum"])


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_options": {}},
        {"top_logprobs": 1},
        {"task": "ocr", "tasks": ["ocr"]},
        {"num_beams": 2, "temperature": 0.5},
        {"n": 2, "tasks": ["ocr"]},
        {"n": 2, "task": {"name": "detect", "labels": ["a", "b"]}},
        {"tool_choice": "required"},
        {"audio": {}},
        {"temperature": 2.1},
        {"logit_bias": {"a": 1}},
        {"logit_bias": {"1": 101}},
        {"task": {"name": "detect", "region": {}}},
        {"task": {"name": "detect", "region": {"box": [0, 0, 1, 1], "box_px": [0, 0, 1, 1]}}},
        {"task": {"name": "detect", "regions": []}},
        {"response_format": {"type": "json_schema"}},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [user(image_part("a.png"))]},
    ],
)
def test_rules_of_several_fields(fields: Json) -> None:
    assert not validator(REQUEST).is_valid(body(**fields))
