"""One model after another, over HTTP."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from router.admission.capacity import Capacity
from router.app import create_app
from router.config import RouterConfig
from tests.clock import run_clocked
from tests.router.composition.world import CONFIG, Models, asking, routing, said
from tests.router.world import CHAT, Json, check_error, events, post, script, words
from vlm.errors import (
    DeadlineExceeded,
    EngineFailure,
    EngineLost,
    InvalidImage,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
    UnsupportedTask,
    VlmError,
)
from vlm.types import Chunk

pytestmark = pytest.mark.anyio

FIRST, SECOND = "florence-2-base", "moondream-2"
REQUEST = asking(FIRST, models=[SECOND])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Overloaded("full"), "overloaded"),
        (ModelNotReady("starts"), "model_not_ready"),
        (EngineFailure("broke"), "engine_failure"),
        (EngineLost("died"), "engine_failure"),
        (DeadlineExceeded("late"), "timeout"),
        (UnsupportedTask("no such task"), "unsupported_task"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_model_answers_for_one_that_cannot(error: VlmError, reason: str, stream: bool) -> None:
    models = Models({FIRST: [error], SECOND: script(words("a blue circle"))})
    answer = await post(models, {**REQUEST, "stream": stream}, CONFIG)
    assert answer.status_code == 200
    assert answer.headers["x-gigarouter-model"] == SECOND
    assert models.names_asked == [FIRST, SECOND]
    assert models.running == 0
    told = next(one for one in events(answer.text) if "x_gigarouter" in one) if stream else answer.json()
    assert told["model"] == SECOND
    first, second = told["x_gigarouter"]["routing"]["tried"]
    assert (first["model"], first["status"], first["reason"], first["cost_usd"]) == (FIRST, "failed", reason, 0)
    assert (second["model"], second["status"], second["reason"]) == (SECOND, "answered", None)
    assert told["x_gigarouter"]["routing"]["chosen"] == SECOND


async def test_nobody_else_is_asked_where_the_first_answers() -> None:
    models = Models()
    answer = await post(models, REQUEST, CONFIG)
    assert (said(answer), models.names_asked) == ("a red square", [FIRST])
    assert routing(answer)["cost_usd"] == 0.0001
    assert answer.json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("error", [InvalidRequest("wrong", "task"), InvalidImage("not an image")])
async def test_a_request_that_is_at_fault_is_not_tried_again(error: VlmError) -> None:
    models = Models({FIRST: [error]})
    answer = await post(models, REQUEST, CONFIG)
    assert answer.status_code == 400
    assert models.names_asked == [FIRST]


async def test_an_answer_that_has_begun_is_not_replaced() -> None:
    models = Models({FIRST: [*script(words())[:1], EngineFailure("broke")]})
    answer = await post(models, {**REQUEST, "stream": True}, CONFIG)
    assert models.names_asked == [FIRST]
    assert events(answer.text)[-1]["error"]["code"] == "engine_failure"


async def test_the_error_after_which_it_helps_most_to_try_again_is_told_of_all() -> None:
    models = Models({FIRST: [Overloaded("The first is full.", retry_after_s=7)], SECOND: [EngineFailure("It broke.")]})
    answer = await post(models, REQUEST, CONFIG)
    error = check_error(answer, 503, "overloaded", None)
    assert error["message"] == ("No model could answer. florence-2-base: The first is full.; moondream-2: It broke.")
    assert answer.headers["retry-after"] == "7"


async def test_the_same_model_twice_is_asked_once() -> None:
    models = Models({FIRST: [Overloaded("full")]})
    answer = await post(models, asking(FIRST, models=[FIRST, "microsoft/Florence-2-base"]), CONFIG)
    check_error(answer, 503, "overloaded", None)
    assert models.names_asked == [FIRST]


async def test_a_model_that_is_not_ready_is_not_waited_for_while_another_is() -> None:
    models = Models(not_ready=[FIRST])
    answer = await post(models, REQUEST, CONFIG)
    assert (answer.json()["model"], models.names_asked) == (SECOND, [SECOND])
    passed = [one for one in routing(answer)["tried"] if one["status"] == "not_asked"]
    assert [(one["model"], one["reason"]) for one in passed] == [(FIRST, "model_not_ready")]


async def test_where_none_is_ready_all_are_asked_in_order() -> None:
    models = Models(not_ready=[FIRST, SECOND])
    assert (await post(models, REQUEST, CONFIG)).json()["model"] == FIRST


async def test_a_model_without_the_task_is_passed_over() -> None:
    models = Models()
    answer = await post(models, asking("blip-large", task="detect", models=[FIRST]), CONFIG)
    assert models.names_asked == [FIRST]
    first = routing(answer)["tried"][0]
    assert (first["model"], first["status"], first["reason"]) == ("blip-large", "not_asked", "unsupported_task")


async def test_a_task_behind_the_name_is_for_all() -> None:
    models = Models({FIRST: [Overloaded("full")]})
    await post(models, asking(f"{FIRST}:caption", models=[SECOND]), CONFIG)
    assert [request.task and request.task.name for _, request in models.asked] == ["caption", "caption"]


def test_a_model_that_is_silent_leaves_time_for_the_next() -> None:
    models = Models(pauses_s={FIRST: 10_000.0})

    async def ask() -> httpx.Response:
        return await post(models, REQUEST, RouterConfig(request_timeout_s=60))

    answer = run_clocked(ask())
    assert models.names_asked == [FIRST, SECOND]
    first = routing(answer)["tried"][0]
    assert (first["reason"], first["latency_ms"]) == ("timeout", pytest.approx(30_000, abs=1))


def test_a_stream_that_waits_long_begins_with_comments_and_the_right_model() -> None:
    models = Models(pauses_s={FIRST: 10_000.0})

    async def ask() -> httpx.Response:
        return await post(models, {**REQUEST, "stream": True}, RouterConfig(request_timeout_s=60, keep_alive_s=5))

    answer = run_clocked(ask())
    assert answer.text.startswith(": keep-alive\n\n")
    assert {one["model"] for one in events(answer.text)} == {SECOND}


async def test_each_model_lets_the_request_in_by_its_own_queue() -> None:
    class Full(Models):
        def capacity(self, model: str) -> Capacity:
            return Capacity(1, slots=1)

    models = Full(pauses_s={FIRST: 0.05})
    app = create_app(models, RouterConfig())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as http:
        import asyncio

        alone: Json = {**REQUEST, "models": None}
        before = [asyncio.create_task(http.post(CHAT, json=alone)) for _ in range(2)]
        await asyncio.sleep(0.02)
        answer = await http.post(CHAT, json=REQUEST)
        await asyncio.gather(*before)
    assert answer.json()["model"] == SECOND
    assert routing(answer)["tried"][0]["reason"] == "overloaded"


async def test_a_last_chunk_without_a_completion_is_an_error() -> None:
    models = Models({FIRST: [], SECOND: [Chunk()]})
    answer = await post(models, REQUEST, CONFIG)
    check_error(answer, 500, "engine_failure", None)
    assert replace(words()).text  # the world plays nothing here


def test_a_stream_that_begins_before_its_answer_names_no_model_that_may_fail() -> None:
    models = Models({"blip-large": [EngineFailure("It broke.")]}, pauses_s={"blip-large": 20.0})
    request = asking("blip-large", models=["kosmos-2"], task="caption", stream=True)
    answer = run_clocked(post(models, request, RouterConfig(keep_alive_s=1.0)))
    assert {one["model"] for one in events(answer.text)} == {"kosmos-2"}
    assert "x-gigarouter-model" not in answer.headers
