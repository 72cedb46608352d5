"""A task behind the model's name, and the name ``default``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.config import RouterConfig
from router.conversation.model_name import ModelName, read_model_name
from router.conversation.request import ConversationRequest
from tests.router.clients import open_webui
from tests.router.world import FakeBackend, body, check_error, post, read_chat
from vlm.errors import InvalidRequest, UnsupportedTask
from vlm.types import Task

CONFIG = RouterConfig(default_model="blip-large")


def read(request: dict[str, Any], config: RouterConfig = CONFIG) -> ConversationRequest:
    return read_chat(json.dumps(request).encode(), config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("florence-2-base", ModelName("florence-2-base")),
        ("florence-2-base:ocr", ModelName("florence-2-base", "ocr")),
        ("microsoft/Florence-2-base:detect", ModelName("florence-2-base", "detect")),
        ("my/own:caption", ModelName("my/own", "caption")),
        ("my/own:latest", ModelName("my/own:latest")),
        ("florence-2-base:", ModelName("florence-2-base:")),
        (":ocr", ModelName("", "ocr")),
        ("default", ModelName("blip-large")),
        ("default:caption", ModelName("blip-large", "caption")),
    ],
)
def test_names(name: str, expected: ModelName) -> None:
    assert read_model_name(name, CONFIG) == expected


def test_default_is_a_name_like_any_other_where_there_is_none() -> None:
    assert read_model_name("default", RouterConfig()) == ModelName("default")


@pytest.mark.parametrize(
    ("model", "text", "task", "ignored"),
    [
        ("florence-2-base:ocr", "please", Task("ocr"), ("messages[0].content",)),
        ("florence-2-base:ocr", None, Task("ocr"), ()),
        ("blip-large:caption", "a photo of", Task("caption"), ("messages[0].content",)),
        ("moondream-2:detect", "red car, dog\nman", Task("detect", labels=("red car", "dog", "man")), ()),
        ("florence-2-base:detect", None, Task("detect"), ()),
        ("moondream-2:query", "What is it, then?", Task("query", text="What is it, then?"), ()),
        ("florence-2-base:ground", "a green car", Task("ground", text="a green car"), ()),
    ],
)
def test_the_text_is_the_tasks_argument_or_is_reported(
    model: str, text: str | None, task: Task, ignored: tuple[str, ...]
) -> None:
    chat = read(body(text, model=model))
    assert (chat.request.task, chat.request.prompt, chat.ignored) == (task, "", ignored)
    assert chat.resolution == "model"


@pytest.mark.parametrize(
    ("request_body", "task"),
    [
        (body("<OD>", model="florence-2-base:ocr"), None),
        (body(model="florence-2-base:ocr", task="detect"), Task("detect")),
    ],
)
def test_a_native_prompt_and_a_task_of_the_body_come_first(request_body: dict[str, Any], task: Task | None) -> None:
    chat = read(request_body)
    assert (chat.model, chat.request.task, chat.resolution) == ("florence-2-base", task, None)


def test_several_tasks_of_the_body_come_first_and_raw_does_not() -> None:
    assert read(body(model="florence-2-base:ocr", tasks=["detect"])).request.task is None
    assert read(body(model="florence-2-base:ocr", task="raw")).request.task == Task("ocr")


def test_errors_name_the_field_that_the_client_wrote() -> None:
    chat = read(body("hi", model="florence-2-base:query"))
    assert chat.located(UnsupportedTask("No.", "task")).param == "model"
    assert chat.located(InvalidRequest("No.", "task.labels")).param == "messages[0].content"
    assert chat.located(InvalidRequest("No.", "temperature")).param == "temperature"


@pytest.mark.anyio
async def test_the_answer_says_where_the_task_came_from() -> None:
    backend = FakeBackend()
    answer = await post(backend, {**open_webui("hi", model="florence-2-base:ocr"), "stream": False}
                        | {"stream_options": None})  # fmt: skip
    assert answer.json()["x_gigarouter"]["task_resolution"] == "model"
    assert answer.json()["model"] == "florence-2-base"
    check_error(await post(backend, body(model="nobody:ocr")), 404, "model_not_found", "model")
