"""``reasoning_effort`` in chat: the same as ``reasoning.effort`` of the Responses API."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from router.backends.base import ModelStatus
from router.chat.format import BuiltChat, ChatFormat
from router.config import RouterConfig
from router.images import read_image
from tests.router.responses.clients import asked
from tests.router.responses.clients import read as read_responses
from tests.router.world import FakeBackend, body, check_error, client, post, words
from vlm.errors import InvalidRequest
from vlm.types import Chunk, Task

QUESTION = "What is it?"


def read(request: dict[str, Any]) -> BuiltChat:
    config = RouterConfig()
    parsed = ChatFormat(config).parse(json.dumps(request).encode())
    images = [read_image(image.url, config.image_limits, image.param) for image in parsed.images]
    return ChatFormat(config).build(parsed, images, "req_1")


def test_a_model_that_can_reason_does() -> None:
    built = read(body(QUESTION, model="moondream-2", reasoning_effort="low"))
    assert (built.request.task, built.request.prompt) == (Task("query", text=QUESTION, reasoning=True), "")
    assert (built.head.meta.resolution, built.head.meta.ignored) == ("plain", ())


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (QUESTION, {}),
        (QUESTION, {"model": "florence-2-base"}),
        (QUESTION, {"task": "query"}),
        (QUESTION, {"model": "moondream-2:query"}),
        (QUESTION, {"task": {"name": "query", "reasoning": True}}),
        (QUESTION, {"task": "caption"}),
        (QUESTION, {"tasks": ["query"]}),
        ("<OD>", {}),
        (None, {}),
    ],
)
@pytest.mark.parametrize("effort", ["none", "minimal", "medium", "max"])
def test_it_means_what_it_means_in_responses(text: str | None, fields: dict[str, Any], effort: str) -> None:
    fields = {"model": "moondream-2", **fields}
    built = read(body(text, **fields, reasoning_effort=effort))
    other = read_responses(asked(text, **fields, reasoning={"effort": effort}))
    assert built.request == other.request
    assert built.head.meta.resolution == other.head.meta.resolution
    spelled = [name.replace("reasoning.effort", "reasoning_effort") for name in other.asked.ignored]
    assert [name.replace("messages", "input") for name in built.head.meta.ignored] == spelled


def test_an_error_names_the_effort_or_the_text() -> None:
    built = read(body(QUESTION, model="moondream-2", reasoning_effort="high"))
    assert built.located(InvalidRequest("No.", "task.reasoning")).param == "reasoning_effort"
    assert built.located(InvalidRequest("Too long.", "task.text")).param == "messages[0].content"
    other = read_responses(asked(QUESTION, model="moondream-2", reasoning={"effort": "high"}))
    assert other.located(InvalidRequest("Too long.", "task.text")).param == "input[0].content"


@pytest.mark.anyio
async def test_another_effort_is_an_error() -> None:
    backend = FakeBackend(statuses=[ModelStatus("blip-large", ready=True, detail="")])
    error = check_error(await post(backend, body(reasoning_effort="huge")), 400, "invalid_value", "reasoning_effort")
    assert "'low'" in error["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("route", "request_", "path"), [
    ("/v1/chat/completions", body("Hello", task="caption"), "messages[0].content"),
    ("/v1/responses", asked("Hello", task="caption"), "input[0].content"),
])  # fmt: skip
@pytest.mark.anyio
async def test_a_prompt_that_the_model_did_not_use_is_named_by_its_path(
    route: str, request_: dict[str, Any], path: str, *, stream: bool
) -> None:
    backend = FakeBackend([Chunk(completion=replace(words(), ignored=("prompt", "top_p")))])
    async with client(backend) as http:
        answer = await http.post(route, json={**request_, "stream": stream})
    assert f'"ignored":["{path}","top_p"]' in answer.text
