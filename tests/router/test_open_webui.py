"""Open WebUI: each of its requests gets what was asked for, from the models that `make serve` runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.images import data_url
from tests.listening import listening
from tests.oracle import MINIATURES
from tests.router.open_webui import answer, background, chat, question, response, workspace_model
from tests.router.world import CHAT, check_error, events
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load

ROOT = MINIATURES.parent
SHAPES = data_url((ROOT / "examples/circle-and-square.png").read_bytes())
ABOVE = data_url((ROOT / "docs/images/above.png").read_bytes())  # an orange diamond above a pink circle
OBJECTS = '{"objects":[{"label":"circle","box":[0.1,0.3,0.4,0.7]}]}'
MODELS = ("blip-large", "florence-2-base", "moondream-2")


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(Engine(load(MINIATURES / name, dtype="float32"), EngineConfig(cache_bytes=2**26)))
            for name in MODELS
        }
        address = stack.enter_context(listening(create_app(LocalBackend(engines), RouterConfig())))
        yield stack.enter_context(httpx.Client(base_url=address, timeout=60))


def ask_responses(http: httpx.Client, body: dict[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
    """The same of the Responses API."""
    streamed = http.post("/v1/responses", json=body)
    assert streamed.status_code == 200, streamed.text
    lines = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line.startswith("data: {")]
    last = json.loads(lines[-1])
    assert last["type"] == "response.completed"
    [message] = [item for item in last["response"]["output"] if item["type"] == "message"]
    return message["content"][0]["text"], message["grounding"], last["response"]["x_gigarouter"]["ignored"]


def ask(http: httpx.Client, body: dict[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
    """The text, the grounding object, and what the answer says that it did not use."""
    response = http.post(CHAT, json=body)
    assert response.status_code == 200, response.text
    assert response.text.endswith("data: [DONE]\n\n")
    chunks = events(response.text)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    [extras] = [chunk["x_gigarouter"] for chunk in chunks if "x_gigarouter" in chunk]
    return "".join(delta.get("content", "") for delta in deltas), deltas[-1]["grounding"], extras["ignored"]


def labels(grounding: dict[str, Any]) -> set[str]:
    return {found["label"] for found in grounding["objects"]}


def test_a_question_about_an_image(http: httpx.Client) -> None:
    text, _, ignored = ask(http, chat("moondream-2", question("How many shapes are there?", SHAPES)))
    assert text == "two"
    assert ignored == ["tools", "messages[0].content[0]"]


def test_a_model_without_questions_describes_the_image(http: httpx.Client) -> None:
    text, _, ignored = ask(http, chat("blip-large", question("What do you see?", SHAPES)))
    assert text == "a red circle left of a blue square"
    assert ignored == ["tools", "messages[0].content[0]", "messages[0].content"]


def test_a_native_prompt(http: httpx.Client) -> None:
    _, grounding, _ = ask(http, chat("florence-2-base", question("<OD>", SHAPES)))
    assert (grounding["native_task"], labels(grounding)) == ("<OD>", {"circle", "square"})


def test_a_second_image_in_the_same_chat(http: httpx.Client) -> None:
    first = question("<OD>", SHAPES)
    text, grounding, ignored = ask(
        http, chat("florence-2-base", first, answer(OBJECTS), question("Describe this image.", ABOVE))
    )
    assert "pink circle" in text
    assert "diamond" in text
    assert grounding["images"] == [{"width": 400, "height": 400}]
    assert ignored == ["tools", "messages[0]", "messages[1]", "messages[2].content[0]"]


def test_a_further_question_without_an_image(http: httpx.Client) -> None:
    first = question("How many shapes are there?", SHAPES)
    text, _, _ = ask(http, chat("moondream-2", first, answer("two"), question("What color is the circle?")))
    assert text == "red"


def test_two_images_in_one_message(http: httpx.Client) -> None:
    text, grounding, _ = ask(http, chat("moondream-2", question("What color is the circle?", SHAPES, ABOVE)))
    assert text == "Image 1: red\nImage 2: pink"
    assert len(grounding["images"]) == 2


def test_a_model_of_the_workspace_with_a_task_among_its_parameters(http: httpx.Client) -> None:
    body = workspace_model("florence-2-base", question("Where?", SHAPES), task="detect", num_beams=1)
    _, grounding, ignored = ask(http, body)
    assert (grounding["task"], labels(grounding)) == ("detect", {"circle", "square"})
    assert "task" not in ignored


def test_a_model_with_a_task_in_its_name(http: httpx.Client) -> None:
    text, _, _ = ask(http, chat("moondream-2:detect", question("circle", SHAPES)))
    assert text.startswith('{"objects":[{"label":"circle",')


def test_an_answer_that_is_to_go_on_is_given_again(http: httpx.Client) -> None:
    """*Continue Response* sends the answer as the last message."""
    text, _, ignored = ask(http, chat("moondream-2", question("How many shapes are there?", SHAPES), answer("two")))
    assert text == "two"
    assert "messages[1]" in ignored


def test_an_answer_that_is_to_be_shorter(http: httpx.Client) -> None:
    """*Regenerate* can send a wish as a further message."""
    first = question("<OD>", SHAPES)
    _, grounding, _ = ask(
        http, workspace_model("florence-2-base", first, answer(OBJECTS), question("More Concise"), task="detect")
    )
    assert labels(grounding) == {"circle", "square"}


@pytest.mark.parametrize("wish", ["Find a title of the chat.", "Find tags.", "Predict what the user asks next."])
@pytest.mark.parametrize("model", MODELS)
def test_a_request_about_the_chat_has_no_image_and_is_refused(http: httpx.Client, model: str, wish: str) -> None:
    """Open WebUI then uses the first question as the title, and has no tags."""
    response = http.post(CHAT, json=background(model, wish, "What is this?", "two shapes", max_tokens=1000))
    too_long = model == "moondream-2"  # it answers questions without an image, but its miniature reads 320 tokens
    param = "messages[0].content" if too_long else "messages"
    error = check_error(response, 400, "context_length_exceeded" if too_long else "invalid_value", param)
    assert ("context length" if too_long else "needs an image") in error["message"]


def test_a_chat_without_an_image_is_told_to_send_one(http: httpx.Client) -> None:
    response = http.post(CHAT, json=chat("blip-large", question("Hello, who are you?")))
    assert "Send it as an image_url part" in check_error(response, 400, "invalid_value", "messages")["message"]


def test_a_connection_of_the_other_kind_sends_responses(http: httpx.Client) -> None:
    first = question("How many shapes are there?", SHAPES)
    text, _, ignored = ask_responses(http, response("moondream-2", first))
    assert text == "two"
    assert ignored == ["tools", "input[0].content[0]"]
    text, grounding, _ = ask_responses(
        http, response("florence-2-base", first, answer("two"), question("<OD>", ABOVE), instructions="Be brief.")
    )
    assert (grounding["images"], labels(grounding)) == ([{"width": 400, "height": 400}], {"circle", "diamond"})
    text, _, _ = ask_responses(
        http, response("moondream-2", first, answer("two"), question("What color is the circle?"), max_output_tokens=9)
    )
    assert text == "red"


def test_a_model_of_the_workspace_that_reasons_through_responses(http: httpx.Client) -> None:
    task = {"name": "query", "reasoning": True}
    text, grounding, _ = ask_responses(
        http, response("moondream-2", question("How many shapes are there?", SHAPES), task=task)
    )
    assert text == "two"
    assert "circle" in grounding["reasoning"]
