"""An answer never leaves something of its request aside without saying so."""

from __future__ import annotations

import json
from string import ascii_letters
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.chat.schema import ChatBody
from router.config import RouterConfig
from router.conversation.ignored import IMPOSSIBLE, MAX_REPORTED
from router.conversation.request import ConversationRequest
from router.conversation.tools import TOOL_FIELDS
from tests.router.world import URL, body, image_part, read_chat, text_part, user
from vlm.errors import VlmError
from vlm.grounding_schema import grounding_schema


def read(request: dict[str, Any]) -> ConversationRequest:
    return read_chat(json.dumps(request).encode(), RouterConfig())


def with_image(**keys: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": URL, **keys}}


@pytest.mark.parametrize(
    ("request_", "ignored"),
    [
        (body(messages=[{**user(image_part()), "name": "kim"}]), ["messages[0].name"]),
        (body(messages=[{**user(image_part()), "images": ["AAAA"]}]), ["messages[0].images"]),
        (body(messages=[user(with_image(detail="auto"))]), []),
        (body(messages=[user(with_image(detail="low"))]), ["messages[0].content[0].image_url.detail"]),
        (body(messages=[user(with_image(format="image/png"))]), ["messages[0].content[0].image_url.format"]),
        (body(messages=[user({**image_part(), "min_pixels": 4})]), ["messages[0].content[0].min_pixels"]),
        (
            body(messages=[user(image_part(), {**text_part("x"), "cache_control": {}, "annotations": None})]),
            ["messages[0].content[1].cache_control"],
        ),
        (
            body(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
            ["stream_options.continuous_usage_stats"],
        ),
        (body(response_format={"type": "json_object", "value": 1}), ["response_format.value"]),
        (body(max_tokens=5, max_completion_tokens=6), ["max_tokens"]),
        (body(max_tokens=5, max_completion_tokens=5), []),
        (body(task="raw", response_format={"type": "json_object"}), ["response_format"]),
        (body(model="blip-large:caption", task="caption"), ["model"]),
        (body(model="blip-large:caption"), []),
    ],
)
def test_what_is_left_aside(request_: dict[str, Any], ignored: list[str]) -> None:
    assert list(read(request_).ignored) == ignored


def schema(**properties: object) -> dict[str, Any]:
    form = {"name": "x", "schema": {"type": "object", "properties": properties}, "strict": True, "description": "y"}
    return body(response_format={"type": "json_schema", "json_schema": form})


@pytest.mark.parametrize(
    ("properties", "keywords"),
    [
        ({"text": {"type": "string", "title": "Text", "description": "What is there."}}, []),
        ({"text": {"type": "string", "maxLength": 10}}, ["maxLength"]),
        ({"objects": {"type": "array", "maxItems": 3}}, ["maxItems"]),
        (
            {"objects": {"items": {"properties": {"label": {"anyOf": [{"enum": ["cat"], "minLength": 1}]}}}}},
            ["enum", "minLength"],
        ),
        ({"format": {"type": "string"}, "enum": {"type": "string"}}, []),
    ],
)
def test_what_of_a_schema_is_not_looked_at(properties: dict[str, Any], keywords: list[str]) -> None:
    assert list(read(schema(**properties)).ignored) == [f"response_format.json_schema.schema.{k}" for k in keywords]


def test_the_published_schema_is_kept_to_wholly() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": grounding_schema()}}
    assert read(body(response_format=form)).ignored == ()


KNOWN = {*ChatBody.model_fields, *IMPOSSIBLE, *TOOL_FIELDS}
NAMES = st.sampled_from(["detail", "name", "images", "strength"]) | st.text(
    st.sampled_from([*ascii_letters, *"_-.$[] é"]), min_size=1, max_size=12
).filter(lambda name: name not in KNOWN)
VALUES: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({"a": 1})
)
PLACES = ("", "messages[0]", "messages[0].content[0]", "messages[0].content[0].image_url", "messages[0].content[1]",
          "stream_options", "response_format", "response_format.json_schema")  # fmt: skip


def at(request: dict[str, Any], place: str) -> dict[str, Any]:
    """The object at a path."""
    here: Any = request
    for step in place.replace("]", "").replace("[", ".").split(".") if place else ():
        here = here[int(step)] if step.isdigit() else here[step]
    assert isinstance(here, dict)
    return here


@given(st.dictionaries(st.tuples(st.sampled_from(PLACES), NAMES), VALUES, max_size=MAX_REPORTED))
def test_every_unknown_key_is_reported_or_refused(unknown: dict[tuple[str, str], object]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "grounding", "schema": None, "strict": True}}
    request = body("<OD>", stream=True, stream_options={"include_usage": True}, response_format=form)
    new = {key: value for key, value in unknown.items() if key[1] not in at(request, key[0])}
    for (place, name), value in new.items():
        at(request, place)[name] = value
    asked = [f"{place}.{name}" if place else name for (place, name), value in new.items() if value is not None]
    try:
        assert sorted(read(request).ignored) == sorted(asked)
    except VlmError as error:
        assert error.param  # noqa: PT017 - a key with a meaning, such as detail, has a wrong value
