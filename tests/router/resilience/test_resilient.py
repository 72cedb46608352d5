"""What is tried again, how often, and what a request ends with otherwise: scripted backends on their own clock."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
from dataclasses import replace
from itertools import pairwise

import httpx
import pytest

from router import app
from router.app import create_app
from router.asgi.errors import row_of
from router.asgi.metering import RequestRecord
from router.backends.base import Backend
from router.config import RouterConfig
from router.resilience.resilient import ResilientBackend, repeatable
from router.resilience.retry_policy import RetryPolicy, RetryStats
from tests.clock import CLOCKED
from tests.router.resilience.world import (
    CLOSED,
    FULL,
    GONE,
    LOST,
    MODEL,
    NOT_READY,
    REQUEST,
    RETRYABLE,
    Scripted,
    read,
)
from tests.router.world import CHAT, Step, body, chosen_script, of_choices, script, words
from vlm.errors import (
    EngineClosed,
    EngineFailure,
    EngineLost,
    InvalidImage,
    InvalidRequest,
    LostTooOften,
    ModelNotFound,
    ReplicaLost,
    VlmError,
)
from vlm.types import Chunk, Request, Sampling

pytestmark = pytest.mark.anyio

GOOD = script(words())
WITHOUT_CHANCE = RetryPolicy(share=0.0, floor=0)


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


def seconds() -> float:
    return asyncio.get_running_loop().time()


def resilient(backend: Scripted, policy: RetryPolicy = RetryPolicy(), uniform: float = 1.0) -> ResilientBackend:
    return ResilientBackend(backend, policy, lambda: uniform)


# Before the first chunk


async def test_an_answer_without_trouble_is_passed_on_as_it_is() -> None:
    backend = Scripted(GOOD)
    one = resilient(backend)
    request = Request(b"image", sampling=Sampling(seed=1))
    assert await read(one, request) == ([*GOOD], None)
    assert backend.asked == [request]
    assert one.stats == RetryStats({}, {}, {})


@pytest.mark.parametrize("error", RETRYABLE)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_lost_its_replica_or_found_no_room_is_tried_again(error: VlmError, stream: bool) -> None:
    backend = Scripted([error], GOOD)
    chunks, ended = await read(resilient(backend), replace(REQUEST, stream=stream))
    assert (chunks, ended) == ([*GOOD], None)
    first, second = backend.asked
    assert first == second


@pytest.mark.parametrize(
    "error",
    [InvalidRequest("No."), InvalidImage("No."), ModelNotFound("No."), EngineFailure("No."), NOT_READY],
)
async def test_other_errors_are_passed_on_at_once(error: VlmError) -> None:
    """A model that is not ready is only worth waiting for once it has been asked."""
    backend = Scripted([error], GOOD)
    one = resilient(backend)
    began = seconds()
    assert await read(one) == ([], error)
    assert (len(backend.asked), seconds()) == (1, began)
    assert one.stats == RetryStats({}, {}, {})


async def test_an_exception_that_is_none_of_ours_is_passed_on() -> None:
    backend = Scripted([RuntimeError("bug")], GOOD)
    with pytest.raises(RuntimeError):
        await read(resilient(backend))
    assert len(backend.asked) == 1


async def test_pauses_double_up_to_the_longest_and_half_of_each_is_random() -> None:
    async def pauses(uniform: float) -> list[float]:
        backend = Scripted([CLOSED], [CLOSED], [CLOSED], [CLOSED], GOOD)
        await read(resilient(backend, RetryPolicy(first_pause_s=0.1, longest_pause_s=0.5), uniform))
        return [after - before for before, after in pairwise(backend.times)]

    assert await pauses(1.0) == pytest.approx([0.1, 0.2, 0.4, 0.5])
    assert await pauses(0.0) == pytest.approx([0.05, 0.1, 0.2, 0.25])


async def test_a_lost_request_waits_until_the_model_is_ready_again() -> None:
    backend = Scripted([GONE], *([[NOT_READY]] * 8), GOOD)
    one = resilient(backend, RetryPolicy(floor=1, share=0.0))
    assert await read(one) == ([*GOOD], None)
    assert one.stats.retries == {(MODEL, "lost"): 1, (MODEL, "not ready"): 8}


async def test_it_does_not_wait_longer_than_its_patience() -> None:
    one = resilient(Scripted([GONE], [NOT_READY]), RetryPolicy(patience_s=5.0))
    began = seconds()
    assert await read(one) == ([], NOT_READY)
    assert 4.0 <= seconds() - began <= 5.0
    assert one.stats.given_up == {(MODEL, "patience"): 1}


async def test_a_request_that_finds_no_room_is_tried_again_twice() -> None:
    backend = Scripted([FULL])
    one = resilient(backend)
    assert await read(one) == ([], FULL)
    assert len(backend.asked) == 3
    assert one.stats == RetryStats({(MODEL, "full"): 2}, {}, {(MODEL, "refused too often"): 1})


@pytest.mark.parametrize(
    ("scripts", "attempts"),
    [([[GONE]], 2), ([[LOST]], 2), ([[CLOSED], [GONE], [FULL], [GOOD[0], LOST]], 4), ([[GOOD[0], LOST]], 2)],
)
async def test_a_request_that_may_end_replicas_takes_two_of_them_at_most(
    scripts: list[list[Step]], attempts: int
) -> None:
    backend = Scripted(*scripts)
    one = resilient(backend)
    _, error = await read(one)
    assert isinstance(error, LostTooOften)
    assert "2 processes" in error.message
    assert len(backend.asked) == attempts
    assert one.stats.given_up == {(MODEL, "lost too often"): 1}
    assert (row_of(error).status, row_of(error).headers) == (500, {"x-should-retry": "false"})


async def test_a_later_attempt_that_fails_for_another_reason_is_the_last() -> None:
    error = InvalidImage("No.")
    one = resilient(Scripted([GONE], [error]))
    assert await read(one) == ([], error)
    assert one.stats.given_up == {(MODEL, "failed"): 1}


async def test_retries_are_a_share_of_the_requests() -> None:
    one = resilient(Scripted([CLOSED]), RetryPolicy(share=0.25, floor=2, patience_s=1e9))
    for _ in range(40):
        assert await read(one) == ([], CLOSED)
    assert sum(one.stats.retries.values()) == 2 + 40 // 4
    assert one.stats.given_up == {(MODEL, "budget"): 40}


async def test_requests_that_had_no_trouble_count_for_the_share() -> None:
    one = resilient(Scripted(*([GOOD] * 19), [CLOSED]), RetryPolicy(share=0.25, floor=0, patience_s=1e9))
    for _ in range(19):
        assert await read(one) == ([*GOOD], None)
    assert await read(one) == ([], CLOSED)
    assert one.stats == RetryStats({(MODEL, "closed"): 5}, {}, {(MODEL, "budget"): 1})


async def test_an_overload_is_not_multiplied() -> None:
    backend = Scripted([FULL])
    one = resilient(backend)
    await asyncio.gather(*(read(one) for _ in range(1000)))
    assert len(backend.asked) <= 1000 * 1.2 + 32


async def test_an_overload_leaves_lost_requests_what_they_need() -> None:
    """Whoever asks for more than there is room for can bring one about."""
    policy = RetryPolicy(share=0.0, floor=3)
    one = resilient(Scripted(*([[FULL]] * 13), [GONE], GOOD), policy)
    for _ in range(10):
        assert await read(one) == ([], FULL)
    assert one.stats.given_up[MODEL, "budget"] > 0
    assert await read(one) == ([*GOOD], None)


async def test_models_have_budgets_of_their_own_and_unknown_names_have_none() -> None:
    one = resilient(Scripted([CLOSED], models=("one", "other")), RetryPolicy(share=0.0, floor=1))
    for model in ("one", "other"):
        with pytest.raises(EngineClosed):
            await anext(one.generate(model, REQUEST))
    names = ("one", "other")
    assert one.stats == RetryStats({(name, "closed"): 1 for name in names}, {}, {(name, "budget"): 1 for name in names})
    for number in range(10):
        with pytest.raises(ModelNotFound):
            await anext(one.generate(f"unknown-{number}", REQUEST))
    assert one._budgets.keys() == {"one", "other"}


async def test_without_share_and_floor_nothing_is_tried_again() -> None:
    for before in ((), GOOD[:1]):
        for error in RETRYABLE:
            backend = Scripted([*before, error], GOOD)
            assert await read(resilient(backend, WITHOUT_CHANCE)) == ([*before], error)
            assert len(backend.asked) == 1


# In the middle of a stream


@pytest.mark.parametrize("error", RETRYABLE)
@pytest.mark.parametrize("sent", [1, 2])
async def test_a_stream_goes_on_where_it_was_cut(error: VlmError, sent: int) -> None:
    one = resilient(Scripted([*GOOD[:sent], error], [Chunk.joined(GOOD)]))
    chunks, ended = await read(one)
    assert ended is None
    assert len(chunks) == sent + 1
    assert Chunk.joined(chunks) == Chunk.joined(GOOD)
    assert one.stats.resumed == {MODEL: 1}


async def test_a_stream_that_is_cut_while_it_is_repeated_goes_on_too() -> None:
    one = resilient(Scripted([*GOOD[:2], CLOSED], [GOOD[0], LOST], [NOT_READY], [*GOOD[:2], CLOSED], GOOD))
    chunks, ended = await read(one)
    assert (chunks, ended) == ([*GOOD], None)
    assert one.stats.resumed == {MODEL: 2}


async def test_several_choices_go_on() -> None:
    chunks = chosen_script(of_choices(words("one red"), words("two blue")))
    one = resilient(Scripted([*chunks[:3], LOST], chunks))
    sent, ended = await read(one, replace(REQUEST, n=2))
    assert ended is None
    assert Chunk.joined(sent) == Chunk.joined(chunks)


async def test_a_stream_that_is_not_the_same_again_ends_with_what_has_cut_it() -> None:
    one = resilient(Scripted([*GOOD[:2], LOST], script(words("a blue square"))))
    assert await read(one) == ([*GOOD[:2]], LOST)
    assert one.stats == RetryStats({(MODEL, "lost"): 1}, {}, {(MODEL, "not repeatable"): 1})


@pytest.mark.parametrize("later", [[InvalidImage("No.")], [FULL], [EngineFailure("No.")], [NOT_READY]])
async def test_a_stream_that_cannot_go_on_ends_with_what_has_cut_it(later: list[Step]) -> None:
    one = resilient(Scripted([*GOOD[:1], LOST], later))
    assert await read(one) == ([GOOD[0]], LOST)


async def test_nothing_is_tried_again_after_the_last_chunk() -> None:
    backend = Scripted([*GOOD, LOST])
    assert await read(resilient(backend)) == ([*GOOD], None)
    assert (len(backend.asked), backend.running) == (1, 0)


# Seeds


async def test_a_stream_that_may_be_drawn_gets_one_seed_for_all_attempts() -> None:
    backend = Scripted([LOST], GOOD)
    await read(resilient(backend))
    first, second = backend.asked
    assert first.sampling.seed is not None
    assert first == second
    assert replace(first, sampling=replace(first.sampling, seed=None)) == REQUEST
    assert len({repeatable(REQUEST).sampling.seed for _ in range(10)}) == 10


@pytest.mark.parametrize(
    "request_",
    [
        Request(None, sampling=Sampling(temperature=0.0)),
        Request(None, sampling=Sampling(temperature=1.0, seed=0)),
        Request(None, sampling=Sampling(temperature=1.0), stream=False),
    ],
)
def test_a_request_that_needs_no_seed_stays_as_it_is(request_: Request) -> None:
    assert repeatable(request_) is request_


# Ending


@pytest.mark.parametrize("before", [[], [GOOD[0]]])
async def test_a_client_that_leaves_ends_the_attempts_at_once(before: list[Step]) -> None:
    backend = Scripted([*before, CLOSED])
    one = resilient(backend, RetryPolicy(first_pause_s=60.0, longest_pause_s=60.0, patience_s=1e9))
    reading = asyncio.create_task(read(one))
    await asyncio.sleep(30)
    reading.cancel()
    left = seconds()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await asyncio.sleep(1000)
    assert (len(backend.asked), backend.running, seconds()) == (1, 0, left + 1000)


@pytest.mark.parametrize("attempt", [0, 1])
async def test_closing_the_answer_closes_the_attempt_that_runs(attempt: int) -> None:
    backend = Scripted(*([[CLOSED]] * attempt), GOOD)
    chunks = resilient(backend).generate(MODEL, REQUEST)
    await anext(chunks)
    assert backend.running == 1
    await chunks.aclose()
    assert backend.running == 0


async def test_an_attempt_is_closed_before_the_next_begins() -> None:
    backend = Scripted([GOOD[0], CLOSED], [GOOD[0], LOST], GOOD)
    await read(resilient(backend))
    assert backend.most == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_through_http_nothing_is_answered_or_counted_twice(stream: bool) -> None:
    records: list[RequestRecord] = []

    async def answer(backend: Backend) -> str:
        routes = create_app(backend, RouterConfig(), lambda _scope, record: records.append(record))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(routes), base_url="http://router") as http:
            return (await http.post(CHAT, json=body(stream=stream))).text

    cut: list[Step] = [*GOOD[:2], LOST] if stream else [LOST]
    last = [*GOOD] if stream else [Chunk.joined(GOOD)]
    again, alone = await answer(resilient(Scripted(cut, last))), await answer(Scripted(last))
    assert without_ids(again) == without_ids(alone)
    first, second = [(one.outcome, one.usage, one.generated_tokens, one.error) for one in records]
    assert first == second == ("completed", words().usage, 3, None)


def without_ids(answer: str) -> str:
    return re.sub(r'"(id|request_id|created)":("[^"]*"|\d+)', "", answer)


# Words


async def test_each_retry_and_each_end_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "router")
    await read(resilient(Scripted([GONE], GOOD)))
    await read(resilient(Scripted([GOOD[0], CLOSED], GOOD)))
    await read(resilient(Scripted([FULL]), RetryPolicy(max_refusals=0)))
    assert [record.getMessage() for record in caplog.records] == [
        "'blip-large' tries a request again in 0.05 s (attempt 2): lost",
        "'blip-large' tries a request again in 0.05 s (attempt 2): closed",
        "'blip-large' goes on with a stream in attempt 2",
        "'blip-large' gives a request up (attempt 1): refused too often, Overloaded",
    ]


@pytest.mark.parametrize("kind", [ReplicaLost, EngineLost, EngineClosed])
def test_errors_keep_their_meaning_on_the_way_through_ray(kind: type[VlmError]) -> None:
    error = pickle.loads(pickle.dumps(kind("Gone.")))
    assert (type(error), error.retryable, error.lost) == (kind, True, kind is not EngineClosed)


def test_the_router_has_the_policy_of_its_settings() -> None:
    backend = Scripted()
    made = app.resilient(backend, RouterConfig(retry_share=0.5, retry_floor=3, retry_patience_s=7.0))
    assert (made._backend, made._policy) == (backend, RetryPolicy(share=0.5, floor=3, patience_s=7.0))
    assert app.resilient(backend, RouterConfig())._policy == RetryPolicy()


async def test_models_are_those_of_the_backend_behind() -> None:
    backend = Scripted()
    assert await resilient(backend).models() == await backend.models()


async def test_each_attempt_says_where_the_request_has_been_and_whether_that_replica_is_gone() -> None:
    for error, gone in ((GONE, True), (CLOSED, True), (LOST, True), (FULL, False)):
        behind = Scripted([error], GOOD)
        await read(ResilientBackend(behind))
        routes = [request.route for request in behind.asked]
        assert routes[0] is not None
        assert all(route is routes[0] for route in routes)
        assert routes[0].gone is gone
        assert REQUEST.route is None
