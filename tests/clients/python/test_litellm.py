"""LiteLLM's SDK."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

litellm = pytest.importorskip("litellm")

from tests.clients.python import world  # noqa: E402  # after the skip
from tests.clients.python.shapes import Detection  # noqa: E402
from tests.clients.python.stub import OVERLOADED, Stub  # noqa: E402


def asked(url: str, model: str, *messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": f"openai/{model}", "api_base": url, "api_key": "any", "messages": list(messages), **fields}


def content(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def test_a_caption(url: str) -> None:
    answer = litellm.completion(**asked(url, "blip-large", world.user()))
    assert content(answer) == world.CAPTION
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 0


def test_an_image_by_http(url: str, image_url: str) -> None:
    assert content(litellm.completion(**asked(url, "blip-large", world.user(url=image_url)))) == world.CAPTION


def test_a_bare_base64_string_is_what_litellm_makes_of_bytes(url: str) -> None:
    data = base64.b64encode(world.IMAGE.read_bytes()).decode()
    with pytest.raises(litellm.BadRequestError, match="data:"):
        litellm.completion(**asked(url, "blip-large", world.user(url=data)))


def test_a_stream(url: str) -> None:
    chunks = list(litellm.completion(**asked(url, "blip-large", world.user(), stream=True)))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == world.CAPTION
    assert litellm.stream_chunk_builder(chunks).choices[0].message.content == world.CAPTION


def test_a_conversation_with_a_second_image(url: str) -> None:
    said = {"role": "assistant", "content": world.ANSWER}
    again = world.user(world.QUESTION, world.data_url(world.OTHER_IMAGE))
    answer = litellm.completion(**asked(url, "moondream-2", world.user(world.QUESTION), said, again))
    assert content(answer) == world.OTHER_ANSWER


def test_objects_are_kept_beside_the_message(url: str) -> None:
    answer = litellm.completion(**asked(url, "florence-2-base", world.user(), extra_body={"task": "detect"}))
    grounding = answer.choices[0].message.provider_specific_fields["grounding"]
    assert [one["label"] for one in grounding["objects"]] == ["circle", "square"]
    assert [one["label"] for one in json.loads(content(answer))["objects"]] == ["circle", "square"]


def test_a_stream_has_the_objects_in_its_content_and_nowhere_else(url: str) -> None:
    chunks = list(litellm.completion(**asked(url, "florence-2-base", world.user("<OD>"), stream=True)))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert [one["label"] for one in json.loads(text)["objects"]] == ["circle", "square"]
    assert "grounding" not in repr(chunks)


def test_a_typed_output(url: str) -> None:
    answer = litellm.completion(**asked(url, "florence-2-base", world.user("<OD>"), response_format=Detection))
    assert [one.label for one in Detection.model_validate_json(content(answer)).objects] == ["circle", "square"]


def test_errors_by_class(url: str) -> None:
    with pytest.raises(litellm.NotFoundError, match="gpt-4o"):
        litellm.completion(**asked(url, "gpt-4o", world.user()))
    with pytest.raises(litellm.BadRequestError, match="not an image"):
        litellm.completion(**asked(url, "blip-large", world.user(url=world.BROKEN_IMAGE)))
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**asked(url, "moondream-2", world.user("word " * 5000)))


def test_an_overload_is_retried_and_a_mistake_is_not(stub: Stub) -> None:
    stub.refuse(OVERLOADED)
    answer = litellm.completion(**asked(f"{stub.url}/v1", "blip-large", world.user(), max_retries=2))
    assert content(answer) == world.CAPTION
    assert len(stub.calls) == 2
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**asked(f"{stub.url}/v1", "gpt-4o", world.user(), max_retries=2))
    assert len(stub.calls) == 3


@pytest.mark.anyio
async def test_async(url: str) -> None:
    assert content(await litellm.acompletion(**asked(url, "blip-large", world.user()))) == world.CAPTION
    stream = await litellm.acompletion(**asked(url, "blip-large", world.user(), stream=True))
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == world.CAPTION


def test_responses(url: str) -> None:
    content = [{"type": "input_text", "text": world.QUESTION}, {"type": "input_image", "image_url": world.data_url()}]
    answer = litellm.responses(
        model="openai/moondream-2", api_base=url, api_key="any", input=[{"role": "user", "content": content}]
    )
    assert answer.output_text == world.ANSWER
