"""Every task of every miniature, whole and streamed: the answers are what the document and OpenAI's types say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from itertools import chain
from typing import Any

import httpx
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from starlette.applications import Starlette

from docs.generate.questions import GALLERY_IMAGES, QUESTIONS, Question
from docs.generate.sample_images import THREE, TWO, SampleImage
from router.app import create_app
from router.backends.base import LocalBackend
from router.config import RouterConfig
from tests.images import data_url, scene
from tests.oracle import MINIATURES
from tests.router.clients import SEARCH
from tests.router.openapi.answers import Answers, check_refusal, data_of
from tests.router.openapi.documents import Json, event_validator, strict_validator
from tests.router.world import CHAT, image_part, text_part, user
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.models.cards import cards

pytestmark = pytest.mark.anyio

IMAGE = image_part(data_url(scene(3)))
COMPLETIONS = Answers(CHAT, ChatCompletion, ChatCompletionChunk, "ChatCompletion", done="[DONE]")
RESPONSES = Answers("/v1/responses", Response, ResponseStreamEvent, "ResponseObject")
EVERYTHING: Json = {
    "logprobs": True,
    "top_logprobs": 3,
    "include_raw": True,
    "grounding_format": "coco",
    "tools": [SEARCH],
    "stream": True,
    "stream_options": {"include_usage": True},
}
MORE = [
    Question("blip-large", "caption", THREE, {"name": "caption"}),
    Question("blip-large", "caption-text", THREE, {"name": "caption", "text": "a photo of"}),
    Question("moondream-2", "reasoning", TWO, {"name": "query", "text": "What is this?", "reasoning": True}),
    Question(
        "moondream-2", "references", TWO, {"name": "query", "text": "And here?", "references": [{"point": [0.5, 0.5]}]}
    ),
]
ALL = pytest.mark.parametrize("question", [*QUESTIONS, *MORE], ids=lambda question: question.file)


@pytest.fixture(scope="module")
def app() -> Iterator[Starlette]:
    config = EngineConfig(max_batch=8, cache_bytes=2**26)
    with ExitStack() as stack:
        engines = {name: stack.enter_context(Engine(load(MINIATURES / name), config)) for name in cards()}
        yield create_app(LocalBackend(engines), RouterConfig(image_urls="off"))


def image_of(sample: SampleImage) -> Json:
    encoded = BytesIO()
    sample.render().save(encoded, "PNG")
    return image_part(data_url(encoded.getvalue()))


IMAGES = {sample.name: image_of(sample) for sample in GALLERY_IMAGES}


async def ask_question(app: Starlette, question: Question, **fields: Any) -> httpx.Response:
    return await ask(app, question.model, IMAGES[question.image.name], task=question.task, **fields)


async def ask(app: Starlette, model: str, *parts: Json, **fields: Any) -> httpx.Response:
    request = {"model": model, "messages": [user(*(parts or (IMAGE,)))], "max_tokens": 24, **fields}
    return await post(app, CHAT, request)


async def post(app: Starlette, path: str, request: Json) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router", timeout=120) as http:
        return await http.post(path, json=request)


def test_every_task_is_asked() -> None:
    offered = {(model, task.name) for model, card in cards().items() for task in card.tasks}
    assert {(question.model, question.task["name"]) for question in (*QUESTIONS, *MORE)} == offered


@ALL
async def test_an_answer(app: Starlette, question: Question) -> None:
    answer = COMPLETIONS.check(await ask_question(app, question))
    assert answer.choices[0].message.grounding["task"] == question.task["name"]
    assert answer.choices[0].logprobs is None


@ALL
async def test_a_stream_with_all_that_it_can_have(app: Starlette, question: Question) -> None:
    *chunks, last = COMPLETIONS.check_stream(await ask_question(app, question, **EVERYTHING))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert choices[-1].finish_reason in {"stop", "length"}
    assert "tools" in chunks[-1].x_gigarouter["ignored"]
    tokens = [*chain.from_iterable(choice.logprobs.content for choice in choices if choice.logprobs)]
    if not has_labels(question):  # of several generations, tokens are not reported one by one
        assert len(tokens) == last.usage.completion_tokens


@ALL
async def test_two_answers(app: Starlette, question: Question) -> None:
    if has_labels(question):
        pytest.skip("several labels are several generations already")
    sampled = {"n": 2, "temperature": 0.8, "seed": 1, "logprobs": True}
    answer = COMPLETIONS.check(await ask_question(app, question, **sampled))
    assert [choice.index for choice in answer.choices] == [0, 1]
    chunks = COMPLETIONS.check_stream(await ask_question(app, question, stream=True, **sampled))
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}


def has_labels(question: Question) -> bool:
    return len(question.task.get("labels", [])) > 1


@ALL
async def test_a_response(app: Starlette, question: Question) -> None:
    image = {"type": "input_image", "image_url": IMAGES[question.image.name]["image_url"]["url"], "detail": "auto"}
    asked = {
        "model": question.model,
        "input": [{"role": "user", "content": [image]}],
        "task": question.task,
        "max_output_tokens": 24,
        "grounding_format": "coco",
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }
    answer = RESPONSES.check(await post(app, RESPONSES.path, asked))
    assert answer.output[-1].grounding["task"] == question.task["name"]
    events = RESPONSES.check_stream(await post(app, RESPONSES.path, {**asked, "stream": True}))
    assert events[-1].type in {"response.completed", "response.incomplete"}
    assert events[-1].response.output_text == answer.output_text


MOONDREAM: list[tuple[str, Json, str]] = [
    ("/v1/caption", {}, "CaptionAnswer"),
    ("/v1/query", {"question": "What is this?"}, "QueryAnswer"),
    ("/v1/query", {"question": "What is this?", "reasoning": True}, "QueryAnswer"),
    ("/v1/detect", {"object": "circle"}, "DetectAnswer"),
    ("/v1/point", {"object": "circle"}, "PointAnswer"),
    ("/v1/segment", {"object": "circle", "model": "florence-2-base"}, "SegmentAnswer"),
]


@pytest.mark.parametrize(("path", "fields", "name"), MOONDREAM)
async def test_moondreams_answers(app: Starlette, path: str, fields: Json, name: str) -> None:
    asked = {"image_url": IMAGE["image_url"]["url"], **fields}
    answer = await post(app, path, asked)
    assert answer.status_code == 200
    strict_validator(name).validate(answer.json())
    streamed = await post(app, path, {**asked, "stream": True})
    for event in streamed.text.split("\n\n") if "event-stream" in streamed.headers["content-type"] else ():
        if event and not event.startswith(":"):
            event_validator(path).validate(json.loads(data_of(event)))


@pytest.mark.parametrize("fields", [{"response_format": {"type": "json_object"}}, {"task": "raw"}, {}])
@pytest.mark.parametrize("model", sorted(cards()))
async def test_other_contents(app: Starlette, model: str, fields: Json) -> None:
    text = text_part("<OD>" if model == "florence-2-base" else "a red")
    COMPLETIONS.check(await ask(app, model, IMAGE, text, **fields))
    COMPLETIONS.check_stream(await ask(app, model, IMAGE, text, stream=True, **fields))


async def test_several_tasks_and_images(app: Starlette) -> None:
    tasks = ["caption", "detect", {"name": "ocr"}]
    answer = COMPLETIONS.check(await ask(app, "florence-2-base", tasks=tasks, grounding_format="qwen"))
    assert [part["task"] for part in answer.choices[0].message.grounding["parts"]] == ["caption", "detect", "ocr"]
    answer = COMPLETIONS.check(await ask(app, "florence-2-base", IMAGE, IMAGE, task="detect"))
    assert len(answer.choices[0].message.grounding["images"]) == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("florence-2-base", {"task": "query"}),
        ("blip-large", {"temperature": 3}),
        ("blip-large", {"tool_choice": "required"}),
        ("kosmos-2", {"task": {"name": "detect"}}),
        ("moondream-2", {"logit_bias": {"1000000": 1}}),
        ("nobody", {}),
    ],
)
async def test_refusals(app: Starlette, model: str, fields: Json, stream: bool) -> None:
    check_refusal(await ask(app, model, stream=stream, **fields), CHAT)


async def test_models(app: Starlette) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        listed = (await http.get("/v1/models?expand=tasks")).json()
        one = await http.get("/v1/models/blip-large")
        health = [await http.get(path) for path in ("/health", "/healthz", "/readyz")]
    strict_validator("ModelList").validate(listed)
    strict_validator("Model").validate(one.json())
    for entry in listed["data"]:
        Model.model_validate(entry, strict=True)
    for answer, name in zip(health, ("Alive", "Alive", "Ready"), strict=True):
        strict_validator(name).validate(answer.json())
