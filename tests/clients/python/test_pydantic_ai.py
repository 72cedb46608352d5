"""Pydantic AI, by chat completions and by the Responses API, which ``openai:`` means by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent, BinaryContent, ImageUrl, ModelHTTPError, NativeOutput, PromptedOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.python import world
from tests.clients.python.shapes import Detection, Text
from tests.clients.python.stub import OVERLOADED, Stub

KINDS = pytest.mark.parametrize("kind", [OpenAIChatModel, OpenAIResponsesModel])


def model(kind: Any, url: str, name: str, **settings: Any) -> Any:
    return kind(name, provider=OpenAIProvider(base_url=url, api_key="any"), **settings)


def image(path: Any = world.IMAGE) -> BinaryContent:
    return BinaryContent(path.read_bytes(), media_type="image/png")


def prompt(text: str = "", *images: Any) -> Sequence[Any]:
    return [*([text] if text else []), *(images or [image()])]


@KINDS
def test_a_caption(kind: Any, url: str) -> None:
    run = Agent(model(kind, url, "blip-large")).run_sync(prompt())
    assert run.output == world.CAPTION
    assert run.usage.output_tokens > 0


@KINDS
def test_an_image_by_http(kind: Any, url: str, image_url: str) -> None:
    agent = Agent(model(kind, url, "blip-large"))
    assert agent.run_sync(prompt("", ImageUrl(image_url))).output == world.CAPTION


@KINDS
def test_a_conversation_with_a_second_image(kind: Any, url: str) -> None:
    agent = Agent(model(kind, url, "moondream-2"), instructions="Be brief.")
    first = agent.run_sync(prompt(world.QUESTION))
    assert first.output == world.ANSWER
    again = prompt(world.QUESTION, image(world.OTHER_IMAGE))
    assert agent.run_sync(again, message_history=first.all_messages()).output == world.OTHER_ANSWER


@KINDS
@pytest.mark.anyio
async def test_a_stream(kind: Any, url: str) -> None:
    async with Agent(model(kind, url, "blip-large")).run_stream(prompt()) as run:
        pieces = [piece async for piece in run.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == world.CAPTION
    assert len(pieces) > 1


@KINDS
def test_a_typed_output_by_default_asks_for_a_tool_and_is_refused_in_words(kind: Any, url: str) -> None:
    with pytest.raises(ModelHTTPError, match=r"does not support tools.*JSON schema instead") as caught:
        Agent(model(kind, url, "florence-2-base"), output_type=Detection).run_sync(prompt("<OD>"))
    assert caught.value.status_code == 400


@KINDS
def test_a_typed_output_by_json_schema(kind: Any, url: str) -> None:
    detect = Agent(model(kind, url, "florence-2-base"), output_type=NativeOutput(Detection))
    assert [one.label for one in detect.run_sync(prompt("<OD>")).output.objects] == ["circle", "square"]
    caption = Agent(model(kind, url, "blip-large"), output_type=NativeOutput(Text))
    assert caption.run_sync(prompt()).output == Text(text=world.CAPTION)


@KINDS
def test_a_typed_output_by_json_schema_as_the_models_default(kind: Any, url: str) -> None:
    eye = model(kind, url, "florence-2-base", profile={"default_structured_output_mode": "native"})
    found = Agent(eye, output_type=Detection).run_sync(prompt("<OD>")).output
    assert [one.label for one in found.objects] == ["circle", "square"]


@KINDS
def test_a_typed_output_by_a_prompt(kind: Any, url: str) -> None:
    detect = Agent(model(kind, url, "florence-2-base"), output_type=PromptedOutput(Detection))
    assert [one.label for one in detect.run_sync(prompt("<OD>")).output.objects] == ["circle", "square"]


@KINDS
def test_tools_on_offer_are_left_aside(kind: Any, url: str) -> None:
    agent = Agent(model(kind, url, "blip-large"))

    @agent.tool_plain
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    assert agent.run_sync(prompt()).output == world.CAPTION


@KINDS
def test_errors(kind: Any, url: str) -> None:
    with pytest.raises(ModelHTTPError, match="gpt-4o") as caught:
        Agent(model(kind, url, "gpt-4o")).run_sync(prompt())
    assert caught.value.status_code == 404
    broken = BinaryContent(b"This is no image.", media_type="image/png")
    with pytest.raises(ModelHTTPError, match="not an image") as caught:
        Agent(model(kind, url, "blip-large")).run_sync(prompt("", broken))
    assert caught.value.status_code == 400


def test_an_overload_is_retried_and_a_mistake_is_not(stub: Stub) -> None:
    stub.refuse(OVERLOADED)
    captions = model(OpenAIChatModel, f"{stub.url}/v1", "blip-large")
    assert Agent(captions).run_sync(prompt()).output == world.CAPTION
    assert len(stub.calls) == 2
    with pytest.raises(ModelHTTPError):
        Agent(captions).run_sync(prompt("", BinaryContent(b"This is no image.", media_type="image/png")))
    assert len(stub.calls) == 3
