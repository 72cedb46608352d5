"""LlamaIndex's ``OpenAILike``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

pytest.importorskip("llama_index.llms.openai_like")

from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.llms.openai_like import OpenAILike

from tests.clients.python import world
from tests.clients.python.shapes import Detection
from tests.clients.python.stub import OVERLOADED, Stub


def model(url: str, name: str, **settings: Any) -> OpenAILike:
    return OpenAILike(model=name, api_base=url, api_key="any", is_chat_model=True, temperature=0.0, **settings)


def user(text: str = "", path: Path = world.IMAGE) -> ChatMessage:
    words = [TextBlock(text=text)] if text else []
    return ChatMessage(role="user", blocks=[*words, ImageBlock(path=path, image_mimetype="image/png")])


def test_a_caption(url: str) -> None:
    assert model(url, "blip-large").chat([user()]).message.content == world.CAPTION


def test_an_image_by_http(url: str, image_url: str) -> None:
    message = ChatMessage(role="user", blocks=[ImageBlock(url=image_url)])
    assert model(url, "blip-large").chat([message]).message.content == world.CAPTION


def test_a_stream(url: str) -> None:
    pieces = [piece.delta or "" for piece in model(url, "blip-large").stream_chat([user()])]
    assert "".join(pieces) == world.CAPTION
    assert len(pieces) > 1


def test_a_conversation_with_a_second_image(url: str) -> None:
    first = [
        ChatMessage(role="system", content="Be brief."),
        user(world.QUESTION),
        ChatMessage(role="assistant", content=world.ANSWER),
    ]
    answer = model(url, "moondream-2").chat([*first, user(world.QUESTION, world.OTHER_IMAGE)])
    assert answer.message.content == world.OTHER_ANSWER


def test_a_typed_output_by_json_schema(url: str) -> None:
    detect = model(url, "florence-2-base", should_use_structured_outputs=True).as_structured_llm(Detection)
    found = detect.chat([user("<OD>")]).raw
    assert isinstance(found, Detection)
    assert [one.label for one in found.objects] == ["circle", "square"]


def test_a_task(url: str) -> None:
    detect = model(url, "florence-2-base", additional_kwargs={"extra_body": {"task": "detect"}})
    assert '"label":"circle"' in (detect.chat([user()]).message.content or "").replace(" ", "")


def test_errors_by_class(url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        model(url, "gpt-4o").chat([user()])


def test_an_overload_is_retried_and_a_mistake_is_not(stub: Stub) -> None:
    stub.refuse(OVERLOADED)
    assert model(f"{stub.url}/v1", "blip-large").chat([user()]).message.content == world.CAPTION
    assert len(stub.calls) == 2
    with pytest.raises(openai.NotFoundError):
        model(f"{stub.url}/v1", "gpt-4o").chat([user()])
    assert len(stub.calls) == 3


@pytest.mark.anyio
async def test_async(url: str) -> None:
    captions = model(url, "blip-large")
    assert (await captions.achat([user()])).message.content == world.CAPTION
    stream = await captions.astream_chat([user()])
    assert "".join([piece.delta or "" async for piece in stream]) == world.CAPTION
