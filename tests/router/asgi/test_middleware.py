"""Headers of every answer, limits of the body, and the last resort."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from logs.request_id import REQUEST_ID
from router.asgi.body import read_body
from router.asgi.errors import BodyTooLarge
from router.asgi.middleware import RequestMiddleware, safe_id
from router.config import RouterConfig
from tests.router.world import CHAT, URL, FakeBackend, body, check_error, client, events, post
from vlm.types import Chunk

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/models/nobody", "/nowhere", CHAT])
async def test_every_answer_has_its_headers(path: str) -> None:
    async with client(FakeBackend()) as http:
        answer = await http.get(path)
        assert re.fullmatch("req_[0-9a-f]{32}", answer.headers["x-request-id"])
        assert int(answer.headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_names_its_model(stream: bool) -> None:
    answer = await post(FakeBackend(), body(model="microsoft/Florence-2-base", stream=stream))
    assert answer.headers["x-gigarouter-model"] == "florence-2-base"


async def test_a_clients_own_ids_are_repeated_if_they_are_safe() -> None:
    async with client(FakeBackend()) as http:
        answer = await http.get("/healthz", headers={"x-request-id": "my-1.2:3_4", "x-client-request-id": "c" * 128})
        assert answer.headers["x-request-id"] == "my-1.2:3_4"
        assert answer.headers["x-client-request-id"] == "c" * 128
        answer = await http.get("/healthz", headers={"x-request-id": "a b", "x-client-request-id": "c" * 129})
        assert answer.headers["x-request-id"].startswith("req_")
        assert "x-client-request-id" not in answer.headers


@pytest.mark.parametrize("value", [None, "", "a b", "a\nb", "é", "x" * 129, "<script>"])
def test_unsafe_ids(value: str | None) -> None:
    assert safe_id(value) is None


async def pieces(*sizes: int) -> AsyncIterator[dict[str, Any]]:
    for size in sizes:
        yield {"type": "http.request", "body": bytes(size), "more_body": True}
    yield {"type": "http.request", "body": b"", "more_body": False}


def scope(**headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "path": "/", "headers": raw}


async def test_a_body_at_the_limit_is_read() -> None:
    assert len(await read_body(scope(content_length="10"), pieces(4, 6).__anext__, 10)) == 10


async def test_a_body_is_refused_by_its_declared_size_before_it_is_read() -> None:
    messages = pieces(4)
    for declared in ("11", "9" * 5000):
        with pytest.raises(BodyTooLarge):
            await read_body(scope(content_length=declared), messages.__anext__, 10)
    assert (await anext(messages))["body"] == bytes(4)


async def test_a_body_with_a_missing_or_wrong_length_is_counted() -> None:
    for headers in ({}, {"content_length": "3"}, {"content_length": "-1"}, {"transfer_encoding": "chunked"}):
        messages = pieces(6, 6, 6)
        with pytest.raises(BodyTooLarge):
            await read_body(scope(**headers), messages.__anext__, 10)
        assert (await anext(messages))["body"] == bytes(6)  # the third piece was never asked for


async def test_413_over_http() -> None:
    answer = await post(FakeBackend(), bytes(1001), RouterConfig(max_body_bytes=1000))
    check_error(answer, 413, "request_too_large", None)


async def test_an_unexpected_exception_is_a_500_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    for stream in (False, True):
        answer = await post(FakeBackend([RuntimeError("secret prompt")]), body(stream=stream))
        check_error(answer, 500, "internal_error", None)
        assert "secret" not in answer.text
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_an_unexpected_exception_in_a_stream_is_its_last_event() -> None:
    answer = await post(FakeBackend([Chunk("a"), RuntimeError("secret")]), body(stream=True))
    assert answer.status_code == 200
    assert events(answer.text)[-1]["error"]["code"] == "internal_error"
    assert "secret" not in answer.text


async def test_the_log_has_a_line_per_request_without_prompt_or_image(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = await post(FakeBackend(), body("secret prompt"))
    lines = [record.getMessage() for record in caplog.records if record.name == "router.asgi.middleware"]
    assert lines == [f"POST '{CHAT}' 200 {lines[0].split()[-2]} ms"]
    assert REQUEST_ID.get() == answer.headers["x-request-id"]  # which every line gets
    assert "secret" not in caplog.text
    assert URL[-40:] not in caplog.text


async def test_a_path_cannot_forge_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="router.asgi.middleware"):
        async with client(FakeBackend()) as http:
            await http.get("/a%0Areq_x: GET forged")
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()


async def test_times_are_in_milliseconds(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    seconds = count(0, 1.5)
    monkeypatch.setattr("router.asgi.middleware.time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    with caplog.at_level(logging.INFO, logger="router.asgi.middleware"):
        async with client(FakeBackend()) as http:
            answer = await http.get("/healthz")
    assert answer.headers["openai-processing-ms"] == "1500"
    assert caplog.messages[-1].endswith("200 3000 ms")


async def test_an_exception_after_the_start_of_an_answer_that_is_no_stream_adds_nothing_to_it() -> None:
    start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    sent: list[Message] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start)
        raise RuntimeError("a bug")

    async def send(message: Message) -> None:
        sent.append(message)

    await RequestMiddleware(app)(scope(), pieces().__anext__, send)
    assert sent == [start]
