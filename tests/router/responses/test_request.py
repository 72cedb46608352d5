"""What a good request for a response turns into: the same as in chat."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.asgi.format import ImageReference
from router.config import RouterConfig
from router.conversation.answer import ResponseOptions
from router.responses.request import IMPOSSIBLE, parse_responses
from tests.images import plain
from tests.router.clients import OTHER_URL
from tests.router.responses.clients import (
    ai_sdk,
    asked,
    input_image,
    input_text,
    openai_agents,
    openai_agents_later,
    pydantic_ai_later,
    pydantic_ai_tool_output,
    read,
    user,
)
from tests.router.world import IMAGE, URL, body, read_chat
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, UnsupportedTask
from vlm.types import Box, Request, Sampling, Task

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_the_smallest_request() -> None:
    built = read(asked())
    assert built.request == Request(IMAGE, stream=False)
    assert built.asked.options == ResponseOptions()
    assert (built.model, built.stream, built.asked.ignored) == ("blip-large", False, ())


def test_input_may_be_a_text() -> None:
    built = read({"model": "moondream-2", "input": "Why is the sky blue?"})
    assert built.request == Request(None, "Why is the sky blue?", stream=False)
    assert built.asked.prompt_param == "input"
    error = built.located(InvalidRequest("It needs an image.", "image", "invalid_value"))
    assert (error.param, error.code) == ("input", "invalid_value")
    assert error.message == "It needs an image. Send it as an input_image part of a user message."


@pytest.mark.parametrize("kind", [{}, {"type": "message"}, {"type": None}])
def test_a_message_may_say_that_it_is_one(kind: dict[str, Any]) -> None:
    message = {**user(input_text("one"), input_image(), input_text("two")), **kind}
    assert read(asked(input=[message])).request == Request(IMAGE, "one\ntwo", stream=False)


def test_a_message_may_have_no_content() -> None:
    items = [user(input_image()), {"role": "user", "content": None}]
    assert read(asked(input=items)).request == Request(IMAGE, stream=False)


SAME: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["end"], "top_k": 5, "min_p": 0.1},
    {"num_beams": 3, "length_penalty": 0.5, "early_stopping": True},
    {"repetition_penalty": 1.5, "no_repeat_ngram_size": 3},
    {"frequency_penalty": 1, "presence_penalty": -1, "logit_bias": {"17": -100}},
    {"task": {"name": "detect", "labels": ["dog"], "region": {"box_px": [0, 0, 64, 48]}}, "include_raw": True},
    {"tasks": ["caption", "detect"], "grounding_format": "coco"},
    {"model": "florence-2-base:ocr"},
    {"task": "raw", "model": "microsoft/Florence-2-base"},
    {"stream": True, "tools": [{"type": "function"}], "tool_choice": "auto", "nonsense": 1},
]
OTHERWISE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_output_tokens": 9}, {"max_tokens": 9}),
    ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    ({"text": {"format": {"type": "text"}}}, {"response_format": {"type": "text"}}),
]


@pytest.mark.parametrize(("settings", "in_chat"), [*((one, one) for one in SAME), *OTHERWISE])
@pytest.mark.parametrize("text", [None, "<OD>", "what is it?"])
def test_the_request_to_the_model_is_that_of_chat(
    settings: dict[str, Any], in_chat: dict[str, Any], text: str | None
) -> None:
    chat = read_chat(json.dumps(body(text, **in_chat)).encode(), RouterConfig())
    built = read(asked(text, **settings))
    assert (built.request, built.model, built.stream) == (chat.request, chat.model, chat.stream)
    assert built.asked.options == chat.options
    assert [name.replace("input", "messages") for name in built.asked.ignored] == list(chat.ignored)


SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


def test_a_schema_is_accepted_by_what_it_requires() -> None:
    built = read(ai_sdk(SCHEMA))
    assert built.asked.options.content == "text"
    assert built.head.echo["text"]["format"] == {
        "type": "json_schema", "strict": True, "name": "response", "schema": SCHEMA,
    }  # fmt: skip


# What real clients send


def test_openai_agents() -> None:
    built = read(openai_agents())
    assert built.request == Request(IMAGE, "What is it?", stream=False)
    assert built.asked.ignored == ("instructions", "tools")


def test_a_later_question_is_about_the_image_that_was_sent_before() -> None:
    built = read(openai_agents_later())
    assert built.request.image == IMAGE
    assert built.request.task == Task("query", text="And the colour?", reasoning=True)
    assert built.request.sampling == Sampling(temperature=0.0)
    assert built.asked.image_params == ("input[0].content[1].image_url",)
    assert built.asked.prompt_param == "input[5].content"
    assert built.asked.ignored == ("instructions", "tools", *(f"input[{at}]" for at in range(5)))


def test_pydantic_ai() -> None:
    built = read(pydantic_ai_later())
    assert (built.request.image, built.request.prompt) == (IMAGE, "And?")
    assert built.asked.ignored == ("instructions", "input[0]", "input[1]", "input[2]")
    with pytest.raises(InvalidRequest, match="moondream-2 does not support tools") as caught:
        read(pydantic_ai_tool_output())
    assert (caught.value.param, caught.value.code) == ("tool_choice", "unsupported_parameter")


def test_the_ai_sdk() -> None:
    built = read(ai_sdk())
    assert (built.request.image, built.request.prompt) == (IMAGE, "<OD>")
    assert built.asked.ignored == ("user", "include[0]", "input[0]", "input[1]", "input[2]")


# The conversation


def test_the_newest_image_counts() -> None:
    items = [user(input_image()), user(input_image(OTHER_URL)), {"role": "user", "content": "hm?"}]
    built = read(asked(input=items))
    assert built.request.image == plain(320, 200)
    assert built.asked.ignored == ("input[0]",)


@given(st.lists(json_values, max_size=4), st.lists(json_values, max_size=4))
def test_whatever_stands_around_the_question_it_is_read(before: list[Any], after: list[Any]) -> None:
    built = read(asked(input=[*before, user(input_image(), input_text("<OD>")), *after]))
    assert (built.request.image, built.request.prompt) == (IMAGE, "<OD>")


def test_several_images_and_labels() -> None:
    task = {"name": "detect", "labels": ["dog", "cat"], "region": {"box": [0, 0, 1, 1]}}
    built = read(asked(input=[user(input_image(), input_image(OTHER_URL))], task=task))
    assert built.request.images == (IMAGE, plain(320, 200))
    assert built.request.task == Task("detect", labels=("dog", "cat"), region=Box(0, 0, 1, 1))
    error = built.located(InvalidImage("No.", "images[1]", "invalid_image"))
    assert error.param == "input[0].content[1].image_url"


@pytest.mark.parametrize("source", ["file_data", "file_url"])
def test_an_image_as_a_file_is_an_image(source: str) -> None:
    request = asked(input=[user({"type": "input_file", source: URL, "filename": "a.png"}, input_text("hi"))])
    assert read(request).request == read(asked("hi")).request
    later = {**request, "input": [*request["input"], user(input_text("and this?"))]}
    assert read(later).request.image == read(asked()).request.image


def test_an_uploaded_file_is_an_image() -> None:
    request = asked(input=[user({"type": "input_file", "file_id": "file-1"})])
    [image] = parse_responses(json.dumps(request).encode(), RouterConfig()).images
    assert image == ImageReference("file-1", "input[0].content[0].file_id", is_file=True)


# Fields without effect, and harmless ones


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({"store": True}, ["store"]),
        ({"store": False, "background": False, "previous_response_id": None, "conversation": None}, []),
        ({"instructions": "Be brief."}, ["instructions"]),
        ({"instructions": [user(input_text("Be brief."))]}, ["instructions"]),
        ({"text": {"verbosity": "low"}}, ["text.verbosity"]),
        ({"truncation": "auto"}, ["truncation"]),
        ({"truncation": "disabled", "parallel_tool_calls": False, "metadata": {"a": "b"}}, []),
        ({"include": ["reasoning.encrypted_content", "message.output_text.logprobs"]}, ["include[0]"]),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, ["stream_options.include_obfuscation"]),
        ({"stream": True, "stream_options": {"include_obfuscation": False}}, []),
        ({"user": "kim", "safety_identifier": "k", "prompt_cache_key": "p", "service_tier": "flex"},
         ["user", "safety_identifier", "prompt_cache_key"]),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, ["tools"]),
        ({"n": 1, "models": None, "logprobs": False, "messages": None}, []),
        ({"text": {"colour": 1}, "reasoning": {"mode": "pro"}}, ["text.colour", "reasoning.mode"]),
        ({"input": [user({**input_image(), "detail": "high"}, input_image())]}, ["input[0].content[0].detail"]),
        ({"input": [user({**input_text("hi"), "mood": "sad"})]}, ["input[0].content[0].mood"]),
        ({"task": "raw", "text": {"format": {"type": "json_object"}}}, ["text.format"]),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {**SCHEMA, "minProperties": 1}}}},
         ["text.format.schema.minProperties"]),
        ({"model": "blip-large:caption", "task": "caption"}, ["model"]),
        ({"drop_params": True, "n": 2, "tool_choice": "required"}, ["tool_choice", "n"]),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_reported(fields: dict[str, Any], ignored: list[str]) -> None:
    assert list(read(asked(**fields)).asked.ignored) == ignored


def test_what_chat_cannot_honour_is_not_honoured_here() -> None:
    assert {"audio", "modalities", "n"} <= set(IMPOSSIBLE)


def test_errors_name_the_field_that_the_client_wrote() -> None:
    built = read(asked("hi", model="florence-2-base:query"))
    assert built.located(UnsupportedTask("No.", "task")).param == "model"
    assert built.located(InvalidRequest("No.", "task.labels")).param == "input[0].content"
    assert built.located(InvalidRequest("No.", "max_tokens")).param == "max_output_tokens"
    assert built.located(InvalidRequest("No.", "task.reasoning")).param == "input[0].content"
    assert built.located(EngineFailure("It failed.")).message == "It failed."
