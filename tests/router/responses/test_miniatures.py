"""Responses from OpenAI's own client down to real engines: the miniatures answer as they do in chat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.alike import assert_alike
from tests.images import data_url
from tests.listening import listening
from tests.oracle import MINIATURES
from tests.router.responses.clients import input_image, input_text
from tests.router.responses.clients import user as asker
from tests.router.world import image_part, text_part, user
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load

IMAGE = data_url((Path(__file__).parents[3] / "examples/circle-and-square.png").read_bytes())
NAMES = ("blip-large", "florence-2-base", "moondream-2")
QUESTION = "What shape is left of the blue square?"


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    config = EngineConfig(max_batch=4, max_waiting=16, cache_bytes=2**26)
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(Engine(load(MINIATURES / name, dtype="float32"), config)) for name in NAMES
        }
        address = stack.enter_context(listening(create_app(LocalBackend(engines), RouterConfig())))
        yield stack.enter_context(OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120))


def respond(client: OpenAI, model: str, text: str | None, *, stream: bool = False, **fields: Any) -> Any:
    """A response, whole or as a stream's last state."""
    items: Any = [asker(input_image(IMAGE), *([input_text(text)] if text else []))]
    answer: Any = client.responses.create(model=model, input=items, stream=stream, temperature=0, **fields)
    return [*answer][-1].response if stream else answer


def chat(client: OpenAI, model: str, text: str | None, **fields: Any) -> Any:
    messages: Any = [user(image_part(IMAGE), *([text_part(text)] if text else []))]
    return client.chat.completions.create(model=model, messages=messages, temperature=0, **fields)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "text", "own"),
    [
        ("blip-large", None, {}),
        ("blip-large", "a photo of", {}),
        ("florence-2-base", "<OD>", {}),
        ("florence-2-base:ocr_regions", None, {}),
        ("florence-2-base", None, {"tasks": ["caption", "detect"]}),
        ("moondream-2", QUESTION, {}),
        ("moondream-2:point", "square, circle", {}),
        ("moondream-2", None, {"task": {"name": "query", "text": QUESTION, "reasoning": True}}),
    ],
)
def test_the_answer_is_that_of_chat(
    client: OpenAI, model: str, text: str | None, own: dict[str, Any], stream: bool
) -> None:
    answer = respond(client, model, text, stream=stream, extra_body=own)
    expected = chat(client, model, text, extra_body=own)
    message = expected.choices[0].message
    assert_alike(answer.output_text, message.content)
    assert_alike(answer.output[-1].grounding, message.grounding)
    assert answer.usage.total_tokens == expected.usage.total_tokens
    assert answer.x_gigarouter["task_resolution"] == expected.x_gigarouter["task_resolution"]
    reasoning = [one.content[0].text for one in answer.output if one.type == "reasoning"]
    assert "".join(reasoning) == getattr(message, "reasoning_content", "")


@pytest.mark.parametrize("stream", [False, True])
def test_effort_is_the_reasoning_of_a_task(client: OpenAI, stream: bool) -> None:
    answer = respond(client, "moondream-2", QUESTION, stream=stream, reasoning={"effort": "low"})
    task = {"name": "query", "text": QUESTION, "reasoning": True}
    message = chat(client, "moondream-2", None, extra_body={"task": task}).choices[0].message
    assert chat(client, "moondream-2", QUESTION, reasoning_effort="low").choices[0].message == message
    reasoning, _ = answer.output
    assert reasoning.content[0].text == message.reasoning_content
    assert answer.output_text == message.content
    assert answer.usage.output_tokens_details.reasoning_tokens > 0
    assert answer.x_gigarouter["ignored"] == []
    assert answer.x_gigarouter["task_resolution"] == "plain"


def test_a_cut_answer_is_incomplete(client: OpenAI) -> None:
    answer = respond(client, "blip-large", None, max_output_tokens=2)
    assert (answer.status, answer.usage.output_tokens) == ("incomplete", 2)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": "hi", "model": "blip-large"}, "input", "Send it as an input_image part of a user message."),
        ({"model": "moondream-2:ocr"}, "model", "offers: caption"),
        ({"model": "moondream-2", "extra_body": {"num_beams": 2}}, "num_beams", "no beam search"),
        ({"model": "moondream-2", "input": "why " * 1000}, "input", "maximum context length is"),
    ],
)
def test_errors_of_the_model_name_a_field_of_the_body(
    client: OpenAI, fields: dict[str, Any], param: str, words: str, stream: bool
) -> None:
    items: Any = [asker(input_image(IMAGE))]
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"input": items, "stream": stream, **fields})
    assert caught.value.param == param
    assert words in caught.value.message
