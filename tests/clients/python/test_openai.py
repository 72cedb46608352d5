"""OpenAI's own client, of version 3 and, in the other environment, of version 2."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

openai = pytest.importorskip("openai")

from pydantic import BaseModel  # noqa: E402  # after the skip

from tests.clients.python import world  # noqa: E402
from tests.clients.python.shapes import Detection, Found, Invoice, Text  # noqa: E402
from tests.clients.python.stub import OVERLOADED, Refusal, Stub  # noqa: E402

KEY = "any"
BOTH = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60) as sdk:
        yield sdk


@pytest.fixture
async def client_async(url: str) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60) as sdk:
        yield sdk


def caption(client: Any, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "blip-large", "messages": [world.user()], **fields})


# Chat


def test_a_caption_of_a_data_url(client: Any) -> None:
    answer = caption(client)
    assert answer.choices[0].message.content == world.CAPTION
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer._request_id == answer.x_gigarouter["request_id"]


def test_a_caption_of_an_image_by_http(client: Any, image_url: str) -> None:
    assert caption(client, messages=[world.user(url=image_url)]).choices[0].message.content == world.CAPTION


def test_a_question(client: Any) -> None:
    answer = caption(client, model="moondream-2", messages=[world.user(world.QUESTION)])
    assert answer.choices[0].message.content == world.ANSWER


def test_objects_are_attributes_of_the_message(client: Any) -> None:
    message = caption(client, model="florence-2-base", extra_body={"task": "detect"}).choices[0].message
    assert [one["label"] for one in message.grounding["objects"]] == ["circle", "square"]
    assert [one["label"] for one in json.loads(message.content)["objects"]] == ["circle", "square"]


def test_a_native_prompt(client: Any) -> None:
    message = caption(client, model="kosmos-2", messages=[world.user(world.GROUNDED)]).choices[0].message
    assert message.content.startswith("An image of a red circle left of")
    assert message.grounding["objects"][0]["label"] == "a red circle"


def test_the_second_image_of_a_conversation_is_the_one_that_is_seen(client: Any) -> None:
    first = world.user(world.QUESTION)
    said = {"role": "assistant", "content": world.ANSWER}
    second = world.user("And here?", world.data_url(world.OTHER_IMAGE))
    history = [{"role": "system", "content": "Be brief."}, first, said]
    assert caption(client, messages=[*history, second]).choices[0].message.content == world.OTHER_CAPTION
    asked = caption(client, model="moondream-2", messages=[*history, {"role": "user", "content": world.QUESTION}])
    assert asked.choices[0].message.content == world.ANSWER, "the newest image, although it is in an older message"


def test_the_client_that_checks_every_field_accepts_the_answers(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True) as strict:
        assert caption(strict).choices[0].message.content == world.CAPTION
        words = [chunk.choices[0].delta.content or "" for chunk in caption(strict, stream=True)]
        assert "".join(words) == world.CAPTION
        assert {"blip-large", "florence-2-base"} <= {model.id for model in strict.models.list()}


# Streams


def test_a_stream_with_usage(client: Any) -> None:
    *chunks, last = caption(client, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == world.CAPTION
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage == caption(client).usage


def test_the_stream_helper(client: Any) -> None:
    with client.chat.completions.stream(model="kosmos-2", messages=[world.user(world.GROUNDED)]) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert {"content.delta", "content.done"} <= kinds
    assert message.content.startswith("An image of a red circle left of")
    assert message.grounding["objects"][0]["label"] == "a red circle"


# Structured output


class Counted(BaseModel):
    objects: list[Found]
    count: int | None = None


def test_parse_objects(client: Any) -> None:
    parsed = client.chat.completions.parse(
        model="florence-2-base", messages=[world.user("<OD>")], response_format=Detection
    )
    found = parsed.choices[0].message.parsed.objects
    assert [one.label for one in found] == ["circle", "square"]
    assert found[0].box[0] < found[1].box[0]


def test_parse_with_an_optional_field_that_no_answer_has(client: Any) -> None:
    """The client declares it as required and possibly null."""
    asked = {"model": "florence-2-base", "messages": [world.user("<OD>")], "response_format": Counted}
    parsed = client.chat.completions.parse(**asked).choices[0].message.parsed
    assert (len(parsed.objects), parsed.count) == (2, None)


def test_parse_a_text(client: Any) -> None:
    parsed = client.chat.completions.parse(model="blip-large", messages=[world.user()], response_format=Text)
    assert parsed.choices[0].message.parsed == Text(text=world.CAPTION)


def test_parse_in_a_stream(client: Any) -> None:
    asked = {"model": "florence-2-base", "messages": [world.user("<OD>")], "response_format": Detection}
    with client.chat.completions.stream(**asked) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert [one.label for one in parsed.objects] == ["circle", "square"]


def test_a_schema_that_no_answer_has_is_refused(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match=r"grounding\.json") as caught:
        client.chat.completions.parse(model="blip-large", messages=[world.user()], response_format=Invoice)
    assert caught.value.param == "response_format"


# Errors


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found"),
        ({"messages": [world.user(url=world.BROKEN_IMAGE)]}, openai.BadRequestError, "invalid_image_format"),
        ({"messages": [world.user(url="http://127.0.0.1:1/a.png")]}, openai.BadRequestError, "invalid_image_url"),
        ({"messages": [world.user(url="file:///etc/passwd")]}, openai.BadRequestError, "invalid_image_url"),
        ({"temperature": 3}, openai.BadRequestError, "invalid_value"),
        ({"tool_choice": "required", "tools": []}, openai.BadRequestError, "unsupported_parameter"),
    ],
)
@BOTH
def test_refusals_by_class(client: Any, fields: Any, kind: Any, code: str, stream: bool) -> None:
    with pytest.raises(kind) as caught:
        caption(client, stream=stream, **fields)
    assert (caught.value.code, caught.value.type) == (code, "invalid_request_error")
    assert caught.value.param
    assert caught.value.request_id


def test_a_route_that_does_not_exist_is_not_an_unknown_model(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="blip-large", input="a red circle")
    assert caught.value.code == "unknown_url"


def test_a_base_url_without_v1(system: str) -> None:
    with (
        openai.OpenAI(base_url=system, api_key=KEY, max_retries=0) as wrong,
        pytest.raises(openai.NotFoundError) as caught,
    ):
        caption(wrong)
    assert caught.value.code == "unknown_url"
    assert "/v1/chat/completions" in str(caught.value)


def test_models(client: Any) -> None:
    assert {"blip-large", "florence-2-base", "kosmos-2", "moondream-2"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("blip-large").owned_by
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody/nothing")
    assert caught.value.code == "model_not_found"


# Retries


@BOTH
def test_an_overload_is_retried(stub: Stub, stream: bool) -> None:
    stub.refuse(OVERLOADED, OVERLOADED)
    with openai.OpenAI(base_url=f"{stub.url}/v1", api_key=KEY) as sdk:
        answer = caption(sdk, stream=stream)
        if stream:
            assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == world.CAPTION
        else:
            assert answer.choices[0].message.content == world.CAPTION
    assert len(stub.calls) == 3
    assert [call.headers["x-stainless-retry-count"] for call in stub.calls] == ["0", "1", "2"]


def test_the_third_overload_is_an_error(stub: Stub) -> None:
    stub.refuse(*[OVERLOADED] * 4)
    with (
        openai.OpenAI(base_url=f"{stub.url}/v1", api_key=KEY) as sdk,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        caption(sdk)
    assert caught.value.code == "overloaded"
    assert len(stub.calls) == 3


@pytest.mark.parametrize("fields", [{"model": "gpt-4o"}, {"messages": [world.user(url=world.BROKEN_IMAGE)]}])
def test_a_mistake_is_not_retried(stub: Stub, fields: Any) -> None:
    with openai.OpenAI(base_url=f"{stub.url}/v1", api_key=KEY) as sdk, pytest.raises(openai.APIStatusError):
        caption(sdk, **fields)
    assert len(stub.calls) == 1


def test_a_timeout_of_the_client(stub: Stub, client: Any) -> None:
    stub.refuse(Refusal(503, "overloaded", delay_s=1.5))
    with openai.OpenAI(base_url=f"{stub.url}/v1", api_key=KEY, max_retries=1, timeout=1) as sdk:
        assert caption(sdk.with_options(timeout=openai.Timeout(30, read=0.5))).choices[0].message.content
    assert len(stub.calls) == 2


# The same without waiting


@pytest.mark.anyio
async def test_async(client_async: Any, image_url: str) -> None:
    assert (await caption(client_async)).choices[0].message.content == world.CAPTION
    by_http = await caption(client_async, messages=[world.user(url=image_url)])
    assert by_http.choices[0].message.content == world.CAPTION
    stream = await caption(client_async, stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == world.CAPTION
    with pytest.raises(openai.NotFoundError):
        await caption(client_async, model="gpt-4o")
