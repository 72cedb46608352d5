"""OpenAI's Agents SDK, by chat completions and by the Responses API, which is its default."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

pytest.importorskip("agents")

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)

from tests.clients.python import world
from tests.clients.python.shapes import Detection

KINDS = pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])

set_tracing_disabled(True)


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url, api_key="any") as sdk:
        yield sdk


def agent(kind: Any, client: openai.AsyncOpenAI, name: str, **settings: Any) -> Any:
    return Agent(name="eye", model=kind(model=name, openai_client=client), **settings)


def asked(text: str = "", path: Any = world.IMAGE, url: str | None = None) -> dict[str, Any]:
    words = [{"type": "input_text", "text": text}] if text else []
    image = {"type": "input_image", "image_url": url or world.data_url(path), "detail": "auto"}
    return {"role": "user", "content": [*words, image]}


@KINDS
@pytest.mark.anyio
async def test_a_caption(kind: Any, client: openai.AsyncOpenAI) -> None:
    run = await Runner.run(agent(kind, client, "blip-large"), [asked()])
    assert run.final_output == world.CAPTION
    assert run.context_wrapper.usage.output_tokens > 0


@KINDS
@pytest.mark.anyio
async def test_an_image_by_http(kind: Any, client: openai.AsyncOpenAI, image_url: str) -> None:
    run = await Runner.run(agent(kind, client, "blip-large"), [asked(url=image_url)])
    assert run.final_output == world.CAPTION


@KINDS
@pytest.mark.anyio
async def test_a_conversation_with_a_second_image(kind: Any, client: openai.AsyncOpenAI) -> None:
    eye = agent(kind, client, "moondream-2", instructions="Be brief.")
    first = await Runner.run(eye, [asked(world.QUESTION)])
    assert first.final_output == world.ANSWER
    again = await Runner.run(eye, [*first.to_input_list(), asked(world.QUESTION, world.OTHER_IMAGE)])
    assert again.final_output == world.OTHER_ANSWER


@KINDS
@pytest.mark.anyio
async def test_a_stream(kind: Any, client: openai.AsyncOpenAI) -> None:
    run = Runner.run_streamed(agent(kind, client, "blip-large"), [asked()])
    pieces = [
        event.data.delta
        async for event in run.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    assert "".join(pieces) == run.final_output == world.CAPTION
    assert len(pieces) > 1


@KINDS
@pytest.mark.anyio
async def test_a_typed_output(kind: Any, client: openai.AsyncOpenAI) -> None:
    run = await Runner.run(agent(kind, client, "florence-2-base", output_type=Detection), [asked("<OD>")])
    assert [one.label for one in run.final_output.objects] == ["circle", "square"]


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return city


@KINDS
@pytest.mark.anyio
async def test_tools_on_offer_are_left_aside(kind: Any, client: openai.AsyncOpenAI) -> None:
    run = await Runner.run(agent(kind, client, "blip-large", tools=[weather]), [asked()])
    assert run.final_output == world.CAPTION


@KINDS
@pytest.mark.anyio
async def test_errors_by_class(kind: Any, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        await Runner.run(agent(kind, client, "gpt-4o"), [asked()])
    with pytest.raises(openai.BadRequestError) as caught:
        await Runner.run(agent(kind, client, "blip-large"), [asked(url=world.BROKEN_IMAGE)])
    assert caught.value.code == "invalid_image_format"
