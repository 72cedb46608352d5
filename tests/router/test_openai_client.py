"""OpenAI's own client against the router on a real port."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from router.conversation.answer import ResponseOptions, grounding_of
from tests.router.conftest import Live
from tests.router.world import CHAT, body, check_error, chosen_script, geometry, of_choices, script, words
from vlm.errors import EngineFailure, ModelNotReady, Overloaded
from vlm.types import Chunk, TopLogprob


@pytest.fixture
def client(live: Live) -> Iterator[OpenAI]:
    live.backend.steps = script(words())
    live.backend.pause_s = 0.0
    with OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0, timeout=20) as sdk:
        yield sdk


def create(client: OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{**body(), **fields})


def test_create(client: OpenAI) -> None:
    answer = create(client)
    assert isinstance(answer, ChatCompletion)
    assert answer.choices[0].message.content == "a red square"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 583
    assert answer._request_id
    assert answer.model_extra is not None
    assert answer.model_extra["x_gigarouter"]["request_id"] == answer._request_id


def test_grounding_is_an_attribute_of_the_message(client: OpenAI, live: Live) -> None:
    live.backend.steps = [Chunk(completion=geometry())]
    message = create(client, model="microsoft/Florence-2-base", extra_body={"task": "detect"}).choices[0].message
    assert message.grounding == grounding_of(geometry(), ResponseOptions())
    assert json.loads(message.content)["objects"][0]["box_px"] == [64.0, 96.0, 320.0, 288.0]
    model, request = live.backend.asked[-1]
    assert model == "florence-2-base"
    assert request.task is not None
    assert request.task.name == "detect"


def test_a_strict_client_accepts_the_answer(client: OpenAI) -> None:
    with OpenAI(base_url=client.base_url, api_key="none", max_retries=0, _strict_response_validation=True) as strict:
        assert create(strict).choices[0].message.content == "a red square"
        assert [chunk.object for chunk in create(strict, stream=True)] == ["chat.completion.chunk"] * 4
        assert [model.id for model in strict.models.list()] == ["blip-large", "florence-2-base"]


def test_stream(client: OpenAI) -> None:
    chunks = list(create(client, stream=True))
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant", None, None, None]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "a red square"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].choices[0].delta.grounding["text"] == "a red square"
    assert chunks[-1].x_gigarouter["task_resolution"] == "default"


def test_stream_with_usage(client: OpenAI) -> None:
    *chunks, last = create(client, stream=True, stream_options={"include_usage": True})
    assert {chunk.usage for chunk in chunks} == {None}
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (580, 3)


@pytest.mark.parametrize("completion", [words(), geometry()])
def test_the_stream_helper_assembles_the_answer(client: OpenAI, live: Live, completion: Any) -> None:
    live.backend.steps = script(completion)
    with client.chat.completions.stream(**body(), logprobs=True, stream_options={"include_usage": True}) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    whole = create(client, logprobs=True)
    message: Any = final.choices[0].message
    assert "content.delta" in kinds
    assert message.role == "assistant"
    assert message.content == whole.choices[0].message.content
    assert message.grounding == whole.choices[0].message.grounding
    assert final.choices[0].logprobs == whole.choices[0].logprobs
    assert final.usage == whole.usage


class Grounding(BaseModel):
    version: str
    task: str
    text: str | None
    objects: list[dict[str, Any]]


def test_parse_returns_a_typed_object(client: OpenAI, live: Live) -> None:
    live.backend.steps = script(geometry())
    schema = {"type": "json_schema", "json_schema": {"name": "Grounding", "schema": Grounding.model_json_schema()}}
    content = create(client, response_format=schema).choices[0].message.content
    assert Grounding.model_validate_json(content).objects[1]["label"] == "kite"


def test_logprobs(client: OpenAI) -> None:
    choice = create(client, logprobs=True).choices[0]
    assert [entry.logprob for entry in choice.logprobs.content] == [-0.5, -0.25, -0.125]
    assert choice.token_ids == [11, 12, 2]


def test_a_strict_client_accepts_several_choices(client: OpenAI, live: Live) -> None:
    answer = of_choices(words("a red square"), words("a blue circle"), words("a star"))
    live.backend.steps = chosen_script(answer)
    with OpenAI(base_url=client.base_url, api_key="none", max_retries=0, _strict_response_validation=True) as strict:
        whole = create(strict, n=3, logprobs=True)
        chunks = list(create(strict, n=3, stream=True, stream_options={"include_usage": True}))
    assert [one.index for one in whole.choices] == [0, 1, 2]
    assert [one.message.content for one in whole.choices] == ["a red square", "a blue circle", "a star"]
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (580, 9)
    assert [chunk.choices[0].index for chunk in chunks[:3]] == [0, 1, 2], "the roles come first, and in order"
    assert {chunk.choices[0].delta.role for chunk in chunks[:3]} == {"assistant"}
    assert chunks[-1].usage == whole.usage


def test_the_stream_helper_assembles_several_choices(client: OpenAI, live: Live) -> None:
    live.backend.steps = chosen_script(of_choices(words("a red square"), words("a star")))
    with client.chat.completions.stream(**body(), n=2, logprobs=True) as stream:
        final = stream.get_final_completion()
    whole = create(client, n=2, logprobs=True)
    for index in range(2):
        mine, theirs = final.choices[index], whole.choices[index]
        assert (mine.index, mine.finish_reason, mine.logprobs) == (index, "stop", theirs.logprobs)
        assert mine.message.content == theirs.message.content
        assert mine.message.grounding == theirs.message.grounding  # type: ignore[attr-defined]  # ours


def test_a_strict_client_accepts_the_likeliest_tokens(client: OpenAI, live: Live) -> None:
    """Whole and streamed; the bytes joined are the output, although one character is in two tokens."""
    parts = ("a ☃".encode()[:3], "a ☃".encode()[3:], b"</s>")
    step = (TopLogprob(11, -0.5, parts[0]), TopLogprob(4, -1.25, b"the"))
    answer = replace(words("a ☃"), token_bytes=parts, top_logprobs=(step, step[1:], ()))
    live.backend.steps = script(answer)
    asked: Any = {"logprobs": True, "top_logprobs": 2}
    with OpenAI(base_url=client.base_url, api_key="none", max_retries=0, _strict_response_validation=True) as strict:
        whole = create(strict, **asked).choices[0].logprobs.content
        chunks = [chunk.choices[0].logprobs for chunk in create(strict, stream=True, **asked)]
    assert [entry for one in chunks if one for entry in one.content] == whole
    assert b"".join(bytes(entry.bytes) for entry in whole).decode() == "a ☃</s>"
    assert [entry.token for entry in whole] == ["a \\xe2", "\\x98\\x83", "</s>"]
    assert [[one.token for one in entry.top_logprobs] for entry in whole] == [["a \\xe2", "the"], ["the"], []]


@pytest.mark.parametrize(
    ("fields", "kind", "expected"),
    [
        ({"temperature": 3}, openai.BadRequestError, ("invalid_value", "temperature")),
        ({"n": 9}, openai.BadRequestError, ("invalid_value", "n")),
        ({"model": "gpt-4o"}, openai.NotFoundError, ("model_not_found", "model")),
        ({"messages": []}, openai.BadRequestError, ("invalid_value", "messages")),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_by_class(
    client: OpenAI, fields: Any, kind: type[openai.APIStatusError], expected: tuple[str, str], stream: bool
) -> None:
    with pytest.raises(kind) as caught:
        create(client, stream=stream, **fields)
    assert (caught.value.code, caught.value.param) == expected
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
    assert create(client).choices[0].message.content == "a red square"


@pytest.mark.parametrize("error", [Overloaded("Full."), ModelNotReady("Not yet."), EngineFailure("Broken.")])
def test_failures_by_class(client: OpenAI, live: Live, error: Exception) -> None:
    live.backend.steps = [error]
    with pytest.raises(openai.InternalServerError) as caught:
        create(client)
    assert caught.value.type == "server_error"
    assert caught.value.code


def test_an_error_in_a_stream_is_raised(client: OpenAI, live: Live) -> None:
    live.backend.steps = [Chunk("a"), EngineFailure("Broken.")]
    with pytest.raises(openai.APIError, match="Broken") as caught:
        list(create(client, stream=True))
    assert caught.value.code == "engine_failure"


def test_the_client_retries_after_an_overload(client: OpenAI, live: Live) -> None:
    live.backend.steps = [Overloaded("Full.")]
    live.backend.asked.clear()
    with pytest.raises(openai.InternalServerError):
        create(client.with_options(max_retries=1))
    assert len(live.backend.asked) == 2


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["blip-large", "florence-2-base"]
    model = client.models.retrieve("microsoft/Florence-2-base")
    assert (model.id, model.owned_by) == ("florence-2-base", "microsoft")
    assert model.model_extra is not None
    assert model.model_extra["license"]["spdx"] == "MIT"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody/nothing")


def test_clients_skip_keep_alive_comments(client: OpenAI, live: Live) -> None:
    live.backend.pause_s = 0.25
    assert len(list(create(client, stream=True))) == 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_disconnects_frees_the_backend(client: OpenAI, live: Live, stream: bool) -> None:
    live.backend.steps = [Chunk("a")] * 1000
    live.backend.pause_s = 0.05
    with pytest.raises((openai.APITimeoutError, StopIteration)):
        _leave_early(client, stream)
    end = time.monotonic() + 5
    while live.backend.running:
        assert time.monotonic() < end
        time.sleep(0.01)


def _leave_early(client: OpenAI, stream: bool) -> None:
    answer = create(client.with_options(timeout=0.2), stream=stream)
    next(iter(answer))
    answer.close()
    raise StopIteration


def test_a_body_over_the_limit_over_a_real_connection(live: Live, client: OpenAI) -> None:
    for _ in range(2):
        answer = httpx.post(f"{live.url}{CHAT}", content=bytes(8 * 1024 * 1024))
        check_error(answer, 413, "request_too_large", None)

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(128 * 1024)

    check_error(httpx.post(f"{live.url}{CHAT}", content=endless()), 413, "request_too_large", None)
    assert create(client).choices[0].message.content == "a red square"


def test_one_connection_survives_a_refusal(live: Live, client: OpenAI) -> None:
    with httpx.Client(base_url=live.url) as http:
        check_error(http.post(CHAT, json=body(model=3)), 400, "invalid_type", "model")
        assert http.post(CHAT, json=body()).status_code == 200
