"""What a good conversation turns into: the request to the model, and the form of its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.config import RouterConfig
from router.conversation.answer import ResponseOptions
from router.conversation.request import ConversationRequest
from tests.router.world import IMAGE, body, read_chat
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, VlmError
from vlm.types import Box, Request, Sampling, Task


def read(request: dict[str, Any]) -> ConversationRequest:
    return read_chat(json.dumps(request).encode(), RouterConfig())


def test_the_smallest_request() -> None:
    chat = read(body())
    assert chat.request == Request(IMAGE, stream=False)
    assert chat.options == ResponseOptions()
    assert (chat.model, chat.stream, chat.include_usage, chat.ignored) == ("blip-large", False, False, ())


def test_the_model_streams_only_where_the_answer_does() -> None:
    assert read(body(stream=True)).request == Request(IMAGE, stream=True)


def test_a_request_without_an_image_is_left_to_the_model() -> None:
    chat = read(body(messages=[{"role": "user", "content": "Why is the sky blue?"}]))
    assert chat.request == Request(None, "Why is the sky blue?", stream=False)
    error = chat.located(InvalidRequest("It needs an image.", "image", "invalid_value"))
    assert (error.param, error.code) == ("messages", "invalid_value")
    assert error.message == "It needs an image. Send it as an image_url part of a user message."
    assert chat.located(EngineFailure("It failed.")).message == "It failed."


def test_an_alias_becomes_the_canonical_name() -> None:
    assert read(body(model="microsoft/Florence-2-base")).model == "florence-2-base"
    assert read(body(model="my-own/model")).model == "my-own/model"


@pytest.mark.parametrize("prompt", ["<OD>", "<CAPTION_TO_PHRASE_GROUNDING> a green car", " a photo of ", "日本\n"])
def test_a_prompt_passes_unchanged(prompt: str) -> None:
    assert read(body(prompt)).request.prompt == prompt


def test_sampling() -> None:
    chat = read(
        body(temperature=0, top_p=1, seed=-7, stop="end", max_tokens=5, repetition_penalty=1.5, no_repeat_ngram_size=3,
             logprobs=True)
    )  # fmt: skip
    assert chat.request.sampling == Sampling(
        max_tokens=5, temperature=0, top_p=1, seed=-7, stop=("end",), repetition_penalty=1.5, no_repeat_ngram_size=3,
        logprobs=True,
    )  # fmt: skip
    assert chat.options.logprobs


def test_penalties_biases_and_limits_of_sampling() -> None:
    chat = read(
        body(frequency_penalty=-2, presence_penalty=1.5, logit_bias={"17": -100, "0": 2.5}, top_k=-1, min_p=0.05)
    )
    assert chat.request.sampling == Sampling(
        frequency_penalty=-2, presence_penalty=1.5, logit_bias=((17, -100), (0, 2.5)), top_k=-1, min_p=0.05
    )
    assert read(body(logprobs=True, top_logprobs=20)).request.sampling == Sampling(logprobs=True, top_logprobs=20)
    neutral = body(top_logprobs=0, frequency_penalty=0, presence_penalty=0, logit_bias={}, top_k=0, min_p=0)
    assert read(neutral).request.sampling == Sampling()


def test_several_choices() -> None:
    assert read(body(n=8)).request == Request(IMAGE, stream=False, n=8)
    assert read(body(n=1)).request.n == read(body()).request.n == 1


def test_beams() -> None:
    chat = read(body(num_beams=8, length_penalty=-0.5, early_stopping=False))
    assert chat.request.sampling == Sampling(num_beams=8, length_penalty=-0.5, early_stopping=False)
    assert read(body(num_beams=1, temperature=1)).request.sampling == Sampling(num_beams=1, temperature=1)


@pytest.mark.parametrize(
    ("given_task", "expected"),
    [
        ("detect", Task("detect")),
        ({"name": "detect", "labels": ["dog", "car"]}, Task("detect", labels=("dog", "car"))),
        ({"name": "ground", "text": "a green car"}, Task("ground", text="a green car")),
        ({"name": "caption", "length": "long"}, Task("caption", length="long")),
        ({"name": "ocr", "region": {"box": [0, 0.25, 1, 0.5]}}, Task("ocr", region=Box(0, 0.25, 1, 0.5))),
    ],
)
def test_tasks(given_task: object, expected: Task) -> None:
    chat = read(body("<OD>", task=given_task))
    assert chat.request.task == expected
    assert chat.request.prompt == "<OD>"  # the processor decides what it means beside a task


def test_several_tasks() -> None:
    chat = read(body("What is it?", tasks=["caption", {"name": "detect", "labels": ["dog", "car"]}, "query"]))
    assert chat.request == Request(
        IMAGE,
        "What is it?",  # for the tasks without a text
        stream=False,
        tasks=(Task("caption"), Task("detect", labels=("dog", "car")), Task("query")),
    )
    assert chat.ignored == ()


def test_one_task_in_a_list_is_still_a_list() -> None:
    assert read(body(tasks=["caption"])).request.tasks == (Task("caption"),)


@pytest.mark.parametrize("task", ["caption", "raw", {"name": "detect"}])
def test_task_and_tasks_cannot_be_combined(task: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body(task=task, tasks=["caption"]))
    assert (caught.value.param, caught.value.code) == ("tasks", "invalid_value")


def test_the_image_size_is_read_only_for_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    read_at: list[str] = []

    def size(data: bytes, limits: object, param: str) -> tuple[int, int]:
        read_at.append(param)
        return (10, 10)

    monkeypatch.setattr("router.conversation.request.upright_size_of", size)
    corner = {"name": "ocr", "region": {"box_px": [0, 0, 5, 5]}}
    read(body(task={"name": "ocr", "region": {"box": [0, 0, 1, 1]}}))
    assert read_at == []
    assert read(body(tasks=[corner, corner])).request.tasks[1].region == Box(0, 0, 0.5, 0.5)
    assert read_at == ["messages[0].content[0].image_url.url"]


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, ResponseOptions("answer")),
        ({"response_format": {"type": "text"}}, ResponseOptions("answer")),
        ({"response_format": {"type": "json_object"}}, ResponseOptions("json")),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "grounding"}}},
         ResponseOptions("grounding")),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "Grounding", "strict": True}}},
         ResponseOptions("grounding")),
        ({"include_raw": True}, ResponseOptions("answer", include_raw=True)),
        ({"task": "raw"}, ResponseOptions("raw", include_raw=True)),
    ],
)  # fmt: skip
def test_the_options_of_the_answer(fields: dict[str, Any], options: ResponseOptions) -> None:
    chat = read(body("<OD>", **fields))
    assert chat.options == options
    assert chat.request.task is None


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (InvalidRequest("No.", "prompt"), "messages[0].content"),
        (InvalidRequest("No.", "image"), "messages[0].content[0].image_url.url"),
        (InvalidImage("No.", code="image_parse_error"), "messages[0].content[0].image_url.url"),
        (InvalidRequest("No.", "task.labels", "invalid_value"), "task.labels"),
        (EngineFailure("No."), None),
    ],
)
def test_later_errors_get_the_path_of_their_field(error: VlmError, param: str | None) -> None:
    located = read(body()).located(error)
    assert type(located) is type(error)
    assert (located.message, located.param, located.code) == (error.message, param, error.code)
