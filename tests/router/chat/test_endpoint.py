"""The chat endpoint from end to end, with a backend that plays its part."""

from __future__ import annotations

import asyncio
import json
import pkgutil
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from router.app import create_app
from router.asgi.metering import RequestRecord
from router.asgi.threads import INLINE_BYTES
from router.config import RouterConfig
from tests.clock import CLOCKED
from tests.images import data_url
from tests.router import world
from tests.router.world import (
    CHAT,
    IMAGE,
    FakeBackend,
    Step,
    body,
    check_error,
    client,
    events,
    image_part,
    post,
    script,
    user,
    words,
)
from vlm.errors import (
    DeadlineExceeded,
    EngineFailure,
    InvalidImage,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
    UnsupportedTask,
)
from vlm.types import Chunk, Request, Task

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


async def test_what_the_backend_is_asked() -> None:
    backend = FakeBackend()
    answer = await post(backend, body("<OD>", model="microsoft/Florence-2-base", task="detect"))
    assert answer.status_code == 200
    [(model, request)] = backend.asked
    assert model == "florence-2-base"
    assert replace(request, caller=None) == Request(IMAGE, "<OD>", Task("detect"), stream=False)
    assert answer.json()["model"] == "florence-2-base"
    assert answer.json()["x_gigarouter"]["request_id"] == answer.headers["x-request-id"]


async def test_the_meter_of_the_application_learns_of_chat_requests() -> None:
    records: list[RequestRecord] = []
    app = create_app(FakeBackend(), RouterConfig(), lambda _scope, record: records.append(record))
    await world.talk(app, CHAT, [request(task={"name": "caption"})])
    [record] = records
    assert (record.outcome, record.model, record.tasks) == ("completed", "blip-large", ("caption",))


async def test_the_headers_of_a_stream() -> None:
    answer = await post(FakeBackend(), body(stream=True))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (InvalidRequest("No.", "prompt", "invalid_value"), 400, "invalid_value", "messages[0].content"),
        (InvalidImage("No.", code="image_parse_error"), 400, "image_parse_error",
         "messages[0].content[0].image_url.url"),
        (UnsupportedTask("No.", "task"), 400, "unsupported_task", "task"),
        (ModelNotReady("No."), 503, "model_not_ready", "model"),
        (Overloaded("No."), 503, "overloaded", None),
        (DeadlineExceeded("No."), 504, "timeout", None),
        (EngineFailure("No."), 500, "engine_failure", None),
    ],
)  # fmt: skip
async def test_an_error_before_the_first_chunk_has_its_status(
    stream: bool, error: Exception, status: int, code: str, param: str | None
) -> None:
    backend = FakeBackend([error])
    answer = await post(backend, body(stream=stream))
    check_error(answer, status, code, param)
    assert answer.headers.get("retry-after") == {"model_not_ready": "2", "overloaded": "1"}.get(code)
    assert (backend.running, backend.closed) == (0, 1)


async def test_a_late_error_ends_a_stream_and_is_a_status_without_one() -> None:
    steps: list[Step] = [Chunk("a"), EngineFailure("Broken.")]
    check_error(await post(FakeBackend(steps), body()), 500, "engine_failure", None)
    answer = await post(FakeBackend(steps), body(stream=True))
    assert answer.status_code == 200
    assert events(answer.text)[-1]["error"]["message"] == "Broken."


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_answer_is_a_failure(stream: bool) -> None:
    check_error(await post(FakeBackend([]), body(stream=stream)), 500, "engine_failure", None)


@pytest.mark.parametrize("stream", [False, True])
async def test_request_headers_do_not_change_the_deadline(stream: bool) -> None:
    backend = FakeBackend(pause_s=30)
    async with client(backend, RouterConfig(request_timeout_s=0.05)) as http:
        headers = {"x-request-timeout-seconds": "0", "x-request-disconnect-disabled": "?1"}
        loop = asyncio.get_running_loop()
        began = loop.time()
        check_error(await http.post(CHAT, json=body(stream=stream), headers=headers), 504, "timeout", None)
        assert loop.time() - began == pytest.approx(0.05)
    assert (backend.running, backend.closed) == (0, 1)


async def test_the_deadline_holds_within_a_stream() -> None:
    backend = FakeBackend(pause_s=0.06)
    answer = await post(backend, body(stream=True), RouterConfig(request_timeout_s=0.1))
    assert answer.status_code == 200
    assert events(answer.text)[-1]["error"]["code"] == "timeout"
    assert (backend.running, backend.closed) == (0, 1)


async def test_the_deadline_holds_while_the_body_is_awaited() -> None:
    sent = await talk(FakeBackend(), [], RouterConfig(request_timeout_s=0.05))
    assert sent[0]["status"] == 408


STEPS = ("router.chat.format.parse_chat", "router.images.read_image", "router.chat.format.build_request")
"""The work on the CPU that reading a request takes."""


@pytest.mark.parametrize("large", [False, True])
async def test_a_large_image_is_read_in_a_thread_unchanged(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    in_thread: dict[str, bool] = {}

    def watched(step: str) -> Callable[..., Any]:
        work = pkgutil.resolve_name(step)

        def run(*args: Any) -> Any:
            in_thread[step] = threading.current_thread() is not threading.main_thread()
            return work(*args)

        return run

    for step in STEPS:
        monkeypatch.setattr(step, watched(step))
    data = IMAGE + bytes(INLINE_BYTES * large)
    backend = FakeBackend()
    answer = await post(backend, body(messages=[user(image_part(data_url(data)))]))
    assert answer.status_code == 200
    assert backend.asked[0][1].image == data
    assert in_thread == dict.fromkeys(STEPS, large)


async def test_concurrent_requests_do_not_mix() -> None:
    backend = FakeBackend(pause_s=0.01)
    async with client(backend) as http:
        answers = await asyncio.gather(*(http.post(CHAT, json=body(str(number))) for number in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert len({answer.json()["id"] for answer in answers}) == 20
    assert {request.prompt for _, request in backend.asked} == {str(number) for number in range(20)}


async def test_a_waiting_stream_is_kept_alive() -> None:
    answer = await post(FakeBackend(pause_s=5), body(stream=True), RouterConfig(keep_alive_s=2))
    assert answer.text.count(": keep-alive\n\n") == 5
    assert [event["choices"][0]["finish_reason"] for event in events(answer.text)][-1] == "stop"


async def test_a_stream_is_kept_alive_before_its_first_chunk_too() -> None:
    """Geometry arrives in one chunk at the end, and a queue may be long: no proxy may close the silent stream."""
    slow = FakeBackend([EngineFailure("Broken.")], pause_s=15)
    answer = await post(slow, body(stream=True), RouterConfig(keep_alive_s=4))
    assert answer.status_code == 200
    assert answer.text.count(": keep-alive\n\n") == 2  # after 8 and 12 s; after 4 s the stream was opened
    opening, error = events(answer.text)
    assert opening["choices"][0]["delta"]["role"] == "assistant"
    assert error["error"]["message"] == "Broken."
    assert (slow.running, slow.closed) == (0, 1)


async def talk(
    backend: FakeBackend, messages: list[dict[str, Any]], config: RouterConfig = RouterConfig(), *, reads: bool = True
) -> list[dict[str, Any]]:
    return await world.talk(create_app(backend, config), CHAT, messages, reads=reads)


def request(**fields: Any) -> dict[str, Any]:
    return {"type": "http.request", "body": json.dumps(body(**fields)).encode(), "more_body": False}


GONE = {"type": "http.disconnect"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_chunk_frees_the_backend(stream: bool) -> None:
    backend = FakeBackend(pause_s=30)
    assert await talk(backend, [request(stream=stream), GONE]) == []
    assert (backend.running, backend.closed) == (0, 1)


async def test_a_client_that_leaves_a_stream_frees_the_backend() -> None:
    backend = FakeBackend([Chunk("a"), *(Chunk("b") for _ in range(1000))], pause_s=0.01)
    sent = await talk(backend, [request(stream=True), GONE])
    assert sent[0]["type"] == "http.response.start"
    assert len(sent) < 50
    assert (backend.running, backend.closed) == (0, 1)


async def test_a_client_that_leaves_while_it_sends_starts_nothing() -> None:
    backend = FakeBackend()
    half = {"type": "http.request", "body": b"{", "more_body": True}
    assert await talk(backend, [half, GONE]) == []
    assert backend.asked == []


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.asgi.endpoint.READING_GRACE_S", 0.05)
    backend = FakeBackend()
    await talk(backend, [request(stream=True)], RouterConfig(request_timeout_s=0.05), reads=False)
    assert (backend.running, backend.closed) == (0, 1)


async def test_cancelling_the_whole_exchange_frees_the_backend() -> None:
    backend = FakeBackend(pause_s=30)
    exchange = asyncio.create_task(talk(backend, [request()]))
    while not backend.running:
        await asyncio.sleep(0.01)
    exchange.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange
    assert (backend.running, backend.closed) == (0, 1)


async def test_a_backend_that_goes_on_after_the_end_is_closed() -> None:
    backend = FakeBackend([*script(words()), Chunk("more"), RuntimeError("never reached")])
    for stream in (False, True):
        assert (await post(backend, body(stream=stream))).status_code == 200
    assert (backend.running, backend.closed) == (0, 2)
