"""A whole answer as a Response object: chat's answer to the same request, under OpenAI's other names."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from openai.types.responses import Response, ResponseError

from router.chat.response import usage_json as chat_usage
from router.config import RouterConfig
from router.conversation.answer import ResponseOptions
from router.responses.response import IMAGE_CODES, MAX_ECHOED_BYTES, message_item, response_json
from tests.router.responses.clients import RESPONSES, asked, post, read
from tests.router.world import (
    BALL,
    FakeBackend,
    body,
    client,
    geometry,
    read_chat,
    script,
    several,
    talk,
    with_reasoning,
    words,
)
from tests.router.world import post as post_chat
from vlm.types import Completion

Json = dict[str, Any]

COMPLETIONS = [words(), words("a ball", BALL), geometry(), several(), with_reasoning()]
FORMATS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    ({"task": "raw"}, {"task": "raw"}),
    ({"include_raw": True, "grounding_format": "coco"}, {"include_raw": True, "grounding_format": "coco"}),
    ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
]


@pytest.mark.anyio
@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize(("fields", "in_chat"), FORMATS)
async def test_the_answer_is_that_of_chat(
    completion: Completion, fields: dict[str, Any], in_chat: dict[str, Any]
) -> None:
    mine = (await post(FakeBackend(script(completion)), asked("<OD>", **fields))).json()
    theirs = (await post_chat(FakeBackend(script(completion)), body("<OD>", **in_chat))).json()
    [choice] = theirs["choices"]
    message = mine["output"][-1]
    assert message["content"][0]["text"] == choice["message"]["content"]
    assert message["grounding"] == choice["message"]["grounding"]
    assert message.get("grounding_format") == choice["message"].get("grounding_format")
    assert message["content"][0]["logprobs"] == ((choice["logprobs"] or {}).get("content") or [])
    assert message["content"][0].get("token_ids") == choice.get("token_ids")
    reasoning = [one["content"][0]["text"] for one in mine["output"] if one["type"] == "reasoning"]
    assert reasoning == [text for text in [choice["message"].get("reasoning_content")] if text]
    same = {"request_id": "", "timings": 0}
    assert {**mine["x_gigarouter"], **same} == {**theirs["x_gigarouter"], **same}
    assert (mine["model"], mine["usage"]["total_tokens"]) == (theirs["model"], theirs["usage"]["total_tokens"])


def test_usage() -> None:
    built = read(asked())
    usage = response_json(with_reasoning(), built.head, ResponseOptions())["usage"]
    chat = chat_usage(with_reasoning(), built.head.meta)
    assert (usage["input_tokens"], usage["output_tokens"]) == (chat["prompt_tokens"], chat["completion_tokens"])
    assert usage["input_tokens_details"] == {**chat["prompt_tokens_details"], "cache_write_tokens": 0}
    assert usage["output_tokens_details"] == chat["completion_tokens_details"]


def test_the_settings_are_repeated() -> None:
    settings = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "metadata": {"trace": "1"},
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low", "summary": "auto"},
        "temperature": 0.5,
        "top_p": 0.9,
        "text": {"format": {"type": "json_object"}},
    }
    answer = response_json(words(), read(asked(**settings)).head, ResponseOptions())
    assert {name: answer[name] for name in settings} == settings


def test_settings_without_effect_are_what_is_true() -> None:
    answer = response_json(words(), read(asked(store=True, truncation="auto", tools=[{}])).head, ResponseOptions())
    assert (answer["store"], answer["truncation"], answer["tools"], answer["tool_choice"]) == (
        False,
        "disabled",
        [],
        "auto",
    )
    assert answer["x_gigarouter"]["ignored"] == ["store", "truncation", "tools"]


@pytest.mark.parametrize("instructions", ["x" * MAX_ECHOED_BYTES, [{"role": "system", "content": "x"}]])
def test_large_settings_are_not_repeated(instructions: object) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    large = {**schema, "description": "x" * MAX_ECHOED_BYTES}
    named = {"type": "json_schema", "name": "x", "schema": large}
    built = read(asked(instructions=instructions, text={"format": named}))
    assert built.head.echo["instructions"] is None
    assert built.head.echo["text"]["format"] == {**named, "schema": {}}
    assert built.asked.options.content == "text"


@pytest.mark.parametrize("completion", [*COMPLETIONS, replace(words(), finish_reason="length")])
@pytest.mark.parametrize(("fields", "_in_chat"), FORMATS)
def test_openais_type_accepts_it(completion: Completion, fields: dict[str, Any], _in_chat: dict[str, Any]) -> None:
    built = read(asked("<OD>", **fields))
    answer = built.response_json(completion)
    Response.model_validate_json(json.dumps(answer), strict=True)
    assert Response.model_validate(answer).output_text == message_item(built.head, completion, built.asked.options)[
        "content"][0]["text"]  # fmt: skip


def test_the_codes_of_a_failed_response_are_openais() -> None:
    known = get_args(ResponseError.model_fields["code"].annotation)
    assert set(known) >= {*IMAGE_CODES, "server_error", "invalid_prompt"}


def test_each_answer_has_ids_of_its_own() -> None:
    first, second = (response_json(words(), read(asked()).head, ResponseOptions()) for _ in range(2))
    assert first["id"].startswith("resp_")
    assert {first["id"], first["output"][0]["id"]}.isdisjoint({second["id"], second["output"][0]["id"]})


@pytest.mark.anyio
async def test_the_operators_settings_and_headers_are_those_of_chat() -> None:
    config = RouterConfig(default_model="blip-large", drop_params=True)
    answer = await post(FakeBackend(), asked(model="default", n=2), config)
    assert (answer.status_code, answer.headers["x-gigarouter-model"]) == (200, "blip-large")
    assert answer.json()["x_gigarouter"]["ignored"] == ["n"]
    assert answer.json()["x_gigarouter"]["request_id"] == answer.headers["x-request-id"]
    assert read_chat(json.dumps(body(model="default")).encode(), config).model == answer.json()["model"]


@pytest.mark.anyio
async def test_a_client_that_leaves_frees_the_backend() -> None:
    backend = FakeBackend([*script(words())[:1]] * 100, pause_s=0.01)
    async with client(backend) as http:
        app = http._transport.app  # type: ignore[attr-defined]  # that of ASGITransport
    request = json.dumps(asked(stream=True)).encode()
    messages: list[Json] = [{"type": "http.request", "body": request, "more_body": False}, {"type": "http.disconnect"}]
    sent = await talk(app, RESPONSES, messages)
    assert sent[0]["status"] == 200
    assert (backend.running, backend.closed) == (0, 1)
