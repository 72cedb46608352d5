"""The router as Ray Serve runs it: real proxies, real handles, one application per model."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from router.app import build
from tests.router.cluster import WITHOUT_TOKEN, cluster
from tests.router.world import CHAT, body, check_error, events, script, words
from vlm.errors import ConfigError, InvalidRequest, Overloaded
from vlm.types import Chunk, ModelInfo, Request

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings are not ours to fix

LONG_S = 120  # longer than any test waits
NO_WAITING = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 1.0}


INFO = ModelInfo("blip", "miniatures/blip-large", None, 1_234_567, "float32", "cpu")


class Model:
    """Answers as its prompt says."""

    def __init__(self, slots: int = 0) -> None:
        self.info = replace(INFO, slots=slots, rows=slots)
        self.waiting = 0
        self.cancelled = 0

    async def describe(self) -> ModelInfo:
        return self.info

    async def answer(self, request: Request) -> Chunk:
        return [chunk async for chunk in self.generate(request)][-1]

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        import asyncio

        if request.prompt in ("waiting", "cancelled"):
            yield script(words(str(getattr(self, request.prompt))))[-1]
            return
        if request.prompt == "refuse":
            yield Chunk(error=InvalidRequest("Not that prompt.", "prompt", "invalid_value"))
            return
        if request.prompt == "full":
            raise Overloaded("Full.")
        if request.prompt == "break":
            raise RuntimeError("secret of the engine")
        if request.prompt == "die":
            os._exit(1)
        self.waiting += request.prompt == "wait"
        try:
            for chunk in script(words()):
                yield chunk
                await asyncio.sleep(LONG_S if request.prompt == "wait" else 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def deploy(name: str, slots: int = 0, **options: Any) -> None:
    from ray import serve

    model: Any = serve.deployment(name="Model", ray_actor_options={"num_cpus": 0}, **NO_WAITING, **options)
    serve.run(model(Model).bind(slots), name=name, route_prefix=None)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with cluster() as port:
        from ray import serve

        deploy("blip-large")
        serve.run(build({"request_timeout_s": 60, **WITHOUT_TOKEN}), name="router", route_prefix="/")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


def ask(http: httpx.Client, prompt: str, **fields: object) -> httpx.Response:
    return http.post(CHAT, json=body(prompt, **fields))


def test_a_cluster_that_asks_for_no_token_needs_consent(url: str) -> None:
    with pytest.raises(ConfigError, match="does not ask for a token"):
        build({"request_timeout_s": 60})


def test_a_whole_answer_by_name_and_by_alias(http: httpx.Client) -> None:
    for name in ("blip-large", "Salesforce/blip-image-captioning-large"):
        answer = ask(http, "", model=name)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "a red square"
        assert answer.headers["x-gigarouter-model"] == "blip-large"


def test_one_request_id_in_the_headers_and_in_the_body(http: httpx.Client) -> None:
    answer = ask(http, "")
    assert answer.headers.get_list("x-request-id") == [answer.json()["x_gigarouter"]["request_id"]]
    mine = http.get("/healthz", headers={"x-request-id": "mine-1"})
    assert mine.headers.get_list("x-request-id") == ["mine-1"]


def test_a_stream(http: httpx.Client) -> None:
    answer = ask(http, "", stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events(answer.text)]
    assert "".join(pieces) == "a red square"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_the_replicas_own_errors_arrive_as_themselves(http: httpx.Client) -> None:
    for stream in (False, True):
        error = check_error(ask(http, "refuse", stream=stream), 400, "invalid_value", "messages[0].content")
        assert error["message"] == "Not that prompt."
        check_error(ask(http, "full", stream=stream), 503, "overloaded", None)
        broken = ask(http, "break", stream=stream)
        check_error(broken, 500, "internal_error", None)
        assert "secret" not in broken.text


def test_routing_errors_keep_the_contract(http: httpx.Client) -> None:
    check_error(ask(http, "", model="nobody"), 404, "model_not_found", "model")
    check_error(http.get("/nowhere"), 404, "unknown_url", None)
    check_error(http.get(CHAT), 405, "method_not_supported", None)


def test_a_client_that_disconnects_cancels_the_work_in_the_replica(http: httpx.Client) -> None:
    for stream in (False, True):
        check_that_leaving_cancels(http, stream=stream)


def test_a_client_may_disconnect_while_it_is_queued(http: httpx.Client) -> None:
    from ray import serve

    deploy("narrow", max_ongoing_requests=1)
    eventually(lambda: ask(http, "", model="narrow").status_code == 200)
    with http.stream("POST", CHAT, json=body("wait", model="narrow", stream=True)) as taken:
        assert taken.status_code == 200
        for stream in (False, True):
            with pytest.raises(httpx.ReadTimeout):
                http.post(CHAT, json=body("", model="narrow", stream=stream), timeout=1.0)
        began = time.monotonic()
        assert http.get("/healthz").status_code == 200
        assert time.monotonic() - began < 1.0
    eventually(lambda: ask(http, "", model="narrow").status_code == 200)
    serve.delete("narrow")


def test_a_router_learns_by_itself_what_a_replica_works_on_and_refuses_more(http: httpx.Client) -> None:
    """Of two places, one for each part, a caller leaves one to others."""
    from ray import serve

    deploy("small", slots=1)
    eventually(lambda: ask(http, "", model="small").status_code == 200)
    with http.stream("POST", CHAT, json=body("wait", model="small", stream=True)) as taken:
        assert taken.status_code == 200
        eventually(lambda: ask(http, "", model="small").status_code == 503)
        refused = ask(http, "", model="small")
        check_error(refused, 503, "overloaded", None)
        assert int(refused.headers["retry-after"]) >= 1
        other = http.post(CHAT, json=body("", model="small"), headers={"authorization": "Bearer other"})
        assert other.status_code == 200
    eventually(lambda: ask(http, "", model="small").status_code == 200)
    serve.delete("small")


def test_a_model_can_be_added_and_removed_while_the_router_runs(http: httpx.Client) -> None:
    from ray import serve

    deploy("newcomer")
    eventually(lambda: ask(http, "", model="newcomer").status_code == 200)
    assert {entry["id"] for entry in http.get("/v1/models").json()["data"]} == {"blip-large", "newcomer"}
    assert http.get("/readyz").status_code == 200
    serve.delete("newcomer")
    eventually(lambda: ask(http, "", model="newcomer").status_code == 404)


def test_models_are_listed_with_what_their_replicas_have_loaded(http: httpx.Client) -> None:
    def is_described() -> bool:
        [entry] = http.get("/v1/models").json()["data"]
        return bool(entry["parameters"] == INFO.parameters and entry["checkpoint"] == INFO.checkpoint)

    eventually(is_described)


def test_a_request_that_ends_replicas_is_given_up_and_the_next_answer_comes(http: httpx.Client) -> None:
    check_error(ask(http, "die"), 500, "engine_failure", None)
    eventually(lambda: ask(http, "").status_code == 200, patience_s=60)


def check_that_leaving_cancels(http: httpx.Client, *, stream: bool, headers: Mapping[str, str] | None = None) -> None:
    """Ask, wait until the replica works on the answer, close the connection, and see the work end."""
    waiting, cancelled = counted(http, "waiting"), counted(http, "cancelled")
    host, port = http.base_url.host, http.base_url.port or 80
    with socket.create_connection((host, port), timeout=LONG_S) as client:
        client.sendall(raw(body("wait", stream=stream), {"host": f"{host}:{port}", **(headers or {})}))
        eventually(lambda: counted(http, "waiting") == waiting + 1)
        assert counted(http, "cancelled") == cancelled
    eventually(lambda: counted(http, "cancelled") == cancelled + 1)


def raw(fields: Mapping[str, object], headers: Mapping[str, str]) -> bytes:
    """A chat request as it goes over the wire."""
    content = json.dumps(fields).encode()
    named = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    lines = [f"POST {CHAT} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def counted(http: httpx.Client, what: str) -> int:
    """How many answers the model has begun to wait in, or has seen cancelled."""
    return int(content(ask(http, what)))


def content(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


def eventually(holds: Any, patience_s: float = 20) -> None:
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.2)
