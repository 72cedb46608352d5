"""The Responses API by OpenAI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

openai = pytest.importorskip("openai")

from tests.clients.python import world  # noqa: E402  # after the skip
from tests.clients.python.shapes import Detection, Invoice, Text  # noqa: E402
from tests.clients.python.stub import OVERLOADED, Stub  # noqa: E402


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=60) as sdk:
        yield sdk


def user(text: str = "", url: str | None = None) -> dict[str, Any]:
    words = [{"type": "input_text", "text": text}] if text else []
    return {"role": "user", "content": [*words, {"type": "input_image", "image_url": url or world.data_url()}]}


def respond(client: Any, *items: Any, **fields: Any) -> Any:
    return client.responses.create(**{"model": "blip-large", "input": list(items) or [user()], **fields})


def test_a_caption(client: Any) -> None:
    answer = respond(client)
    assert answer.output_text == world.CAPTION
    assert answer.status == "completed"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0
    assert answer.store is False


def test_an_image_by_http(client: Any, image_url: str) -> None:
    assert respond(client, user(url=image_url)).output_text == world.CAPTION


def test_objects(client: Any) -> None:
    answer = respond(client, model="florence-2-base", extra_body={"task": "detect"})
    (message,) = answer.output
    assert [one["label"] for one in message.grounding["objects"]] == ["circle", "square"]


def test_a_conversation_with_a_second_image(client: Any) -> None:
    first = respond(client, user(world.QUESTION), model="moondream-2", instructions="Be brief.")
    assert first.output_text == world.ANSWER
    again = user(world.QUESTION, world.data_url(world.OTHER_IMAGE))
    both = respond(client, user(world.QUESTION), *first.output, again, model="moondream-2")
    assert both.output_text == world.OTHER_ANSWER


def test_a_text_alone(client: Any) -> None:
    assert client.responses.create(model="moondream-2", input=world.QUESTION).output_text


def test_a_stream(client: Any) -> None:
    events = list(respond(client, stream=True))
    assert events[0].type == "response.created"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == world.CAPTION
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == world.CAPTION
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_the_stream_helper(client: Any) -> None:
    with client.responses.stream(model="blip-large", input=[user()]) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_response().output_text == world.CAPTION
    assert {"response.created", "response.output_text.delta", "response.completed"} <= kinds


def test_the_client_that_checks_every_field_accepts_the_answers(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0, _strict_response_validation=True) as strict:
        assert respond(strict).output_text == world.CAPTION
        assert list(respond(strict, stream=True))[-1].response.output_text == world.CAPTION


def test_parse(client: Any) -> None:
    found = client.responses.parse(model="florence-2-base", input=[user("<OD>")], text_format=Detection)
    assert [one.label for one in found.output_parsed.objects] == ["circle", "square"]
    text = client.responses.parse(model="blip-large", input=[user()], text_format=Text)
    assert text.output_parsed == Text(text=world.CAPTION)
    with pytest.raises(openai.BadRequestError, match=r"grounding\.json"):
        client.responses.parse(model="blip-large", input=[user()], text_format=Invoice)


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found"),
        ({"input": [user(url=world.BROKEN_IMAGE)]}, openai.BadRequestError, "invalid_image_format"),
        ({"previous_response_id": "resp_1"}, openai.BadRequestError, "unsupported_parameter"),
        ({"background": True}, openai.BadRequestError, "unsupported_parameter"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_by_class(client: Any, fields: Any, kind: Any, code: str, stream: bool) -> None:
    with pytest.raises(kind) as caught:
        respond(client, stream=stream, **fields)
    assert caught.value.code == code
    assert caught.value.param


def test_an_answer_cannot_be_asked_for_again(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="not stored"):
        client.responses.retrieve(respond(client).id)


def test_an_overload_is_retried_and_a_mistake_is_not(stub: Stub) -> None:
    stub.refuse(OVERLOADED)
    with openai.OpenAI(base_url=f"{stub.url}/v1", api_key="any") as sdk:
        assert respond(sdk).output_text == world.CAPTION
        assert len(stub.calls) == 2
        with pytest.raises(openai.NotFoundError):
            respond(sdk, model="gpt-4o")
    assert len(stub.calls) == 3


@pytest.mark.anyio
async def test_async(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as sdk:
        assert (await respond(sdk)).output_text == world.CAPTION
        events = [event async for event in await respond(sdk, stream=True)]
    assert events[-1].response.output_text == world.CAPTION
