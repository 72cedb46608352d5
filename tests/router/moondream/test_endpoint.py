"""Moondream's routes in the whole application: what is there, what is not, and errors as every route has them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.asgi.caller import caller_of
from router.config import RouterConfig
from router.moondream.format import ROUTES
from tests.images import data_url
from tests.router.moondream.asking import ALL, CAPTION, DETECT, JPEG, POINT, QUERY, QUESTION_ALONE, SEGMENT, ask, found
from tests.router.moondream.asking import box as a_box
from tests.router.world import FakeBackend, Step, check_error, client, events, script, words
from vlm.errors import EngineFailure, InvalidRequest, Overloaded, UnsupportedTask
from vlm.types import Chunk

pytestmark = pytest.mark.anyio

FLORENCE = {"model": "florence-2-base"}  # the fake backend serves it


async def test_a_whole_answer() -> None:
    backend = FakeBackend()
    answer = await ask(backend, "caption", CAPTION | FLORENCE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-gigarouter-model"] == "florence-2-base"
    assert answer.json()["caption"] == "a red square"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    [(model, request)] = backend.asked
    assert (model, request.image, request.stream) == ("florence-2-base", JPEG, False)


async def test_a_streamed_answer() -> None:
    answer = await ask(FakeBackend(), "query", QUERY | FLORENCE | {"stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "".join(one["chunk"] for one in events(answer.text)) == "a red square"


async def test_callers_are_told_apart_by_moondreams_credential() -> None:
    backend = FakeBackend()
    await ask(backend, "query", QUESTION_ALONE | FLORENCE)
    scope = {"headers": [(b"x-moondream-auth", b"a-key")], "client": ("127.0.0.1", 1)}
    other = {"headers": [(b"x-moondream-auth", b"another")], "client": ("127.0.0.1", 1)}
    [(_, request)] = backend.asked
    assert request.caller == caller_of(scope) != caller_of(other)


# What is not there


@pytest.mark.parametrize("route", ["transcribe", "chat", "caption/", "Caption", "tuning/finetunes", "vision/tasks"])
async def test_an_unknown_route_is_not_an_unknown_model(route: str) -> None:
    check_error(await ask(FakeBackend(), route, CAPTION), 400, "unknown_url", None)


@pytest.mark.parametrize("route", ROUTES)
async def test_a_route_takes_posts_alone(route: str) -> None:
    async with client(FakeBackend()) as http:
        answer = await http.get(f"/v1/{route}")
    check_error(answer, 405, "method_not_supported", None)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("route", ROUTES)
async def test_a_model_that_is_not_served(route: str) -> None:
    unnamed = await ask(FakeBackend(), route, ALL[route])
    error = check_error(unnamed, 404, "model_not_found", "model")
    assert "moondream-2" in error["message"]
    assert "does not name a model" in error["message"]
    named = await ask(FakeBackend(), route, ALL[route] | {"model": "moondream3-preview"})
    assert "moondream3-preview" in check_error(named, 404, "model_not_found", "model")["message"]


async def test_a_task_that_the_model_does_not_have() -> None:
    backend = FakeBackend([UnsupportedTask("BLIP has no task 'segment'.", "task", "unsupported_task")])
    error = check_error(await ask(backend, "segment", SEGMENT | FLORENCE), 400, "unsupported_task", "model")
    assert "florence-2-base" in error["message"]


# Errors


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        ({"image_url": "/etc/passwd"}, "invalid_image_url", "image_url"),
        ({"image_url": "iVBORw0KGgo="}, "invalid_image_url", "image_url"),
        ({"image_url": "data:image/png;base64,?"}, "invalid_base64_image", "image_url"),
        ({"image_url": data_url(b"GIF89a")}, "invalid_image_format", "image_url"),
        ({"image_url": "http://169.254.169.254/a.jpg"}, "invalid_image_url", "image_url"),
        ({}, "missing_required_parameter", "image_url"),
    ],
)
async def test_what_is_wrong_with_a_body(body: object, code: str, param: str | None) -> None:
    check_error(await ask(FakeBackend(), "caption", body), 400, code, param)


async def test_an_image_over_a_limit() -> None:
    small = RouterConfig(max_image_pixels=100)
    check_error(await ask(FakeBackend(), "point", POINT, small), 400, "image_too_large", "image_url")
    tiny = RouterConfig(max_body_bytes=200)
    check_error(await ask(FakeBackend(), "point", POINT, tiny), 413, "request_too_large", None)


@pytest.mark.parametrize("stream", [False, True])
async def test_early_errors_have_their_status(stream: bool) -> None:
    full = await ask(FakeBackend([Overloaded("Full.")]), "query", QUERY | FLORENCE | {"stream": stream})
    check_error(full, 503, "overloaded", None)
    long = InvalidRequest("This model's maximum context length is 9 tokens.", "prompt", "context_length_exceeded")
    answer = await ask(FakeBackend([long]), "query", QUERY | FLORENCE | {"stream": stream})
    check_error(answer, 400, "context_length_exceeded", "question")


@pytest.mark.parametrize("failure", [EngineFailure("Broken."), RuntimeError("a bug"), None])
async def test_a_stream_that_breaks_off_says_so(failure: Exception | None) -> None:
    steps: list[Step] = [Chunk("a"), *([] if failure is None else [failure])]
    answer = await ask(FakeBackend(steps), "query", QUERY | FLORENCE | {"stream": True})
    assert answer.status_code == 200
    *_, error, last = answer.text.removesuffix("\n\n").split("\n\n")
    assert error.startswith('data: {"error":')
    assert last.startswith("data: [ERROR] The " if not isinstance(failure, EngineFailure) else "data: [ERROR] Broken.")
    assert "a bug" not in answer.text


async def test_a_route_without_streams_says_that_it_does_not_stream() -> None:
    answer = await ask(FakeBackend(script(found(a_box(0, 0, 1, 1)))), "detect", DETECT | FLORENCE | {"stream": True})
    assert answer.json()["x_gigarouter"]["ignored"] == ["stream"]
    assert len(answer.json()["objects"]) == 1


async def test_what_a_model_ignores_is_reported_by_its_path() -> None:
    backend = FakeBackend(script(replace(words(), ignored=("task.length",))))
    answer = await ask(backend, "caption", CAPTION | FLORENCE | {"length": "short", "mood": "happy"})
    assert answer.json()["x_gigarouter"]["ignored"] == ["mood", "length"]
