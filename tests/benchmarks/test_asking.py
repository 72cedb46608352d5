"""How requests end, as the programs see it that break a system on purpose."""

from __future__ import annotations

import httpx
import pytest

from benchmarks.asking import KINDS, LONG, Question, Reply, ask, known_questions, put
from router.backends.base import Backend
from tests.router.world import FakeBackend, body, client, script, words
from vlm.errors import EngineFailure, ModelNotReady

pytestmark = pytest.mark.anyio
GOOD = script(words())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("backend", "stream", "reply"),
    [
        (FakeBackend(), False, Reply("answered", "a red square")),
        (FakeBackend(), True, Reply("answered", "a red square")),
        (FakeBackend([ModelNotReady("Lost.")]), False, Reply("refused", "Lost.", 503, "model_not_ready")),
        (FakeBackend([ModelNotReady("Lost.")]), True, Reply("refused", "Lost.", 503, "model_not_ready")),
        (FakeBackend([*GOOD[:1], EngineFailure("Failed.")]), True, Reply("cut", "Failed.", 200, "engine_failure")),
    ],
)
async def test_each_end_has_its_name(backend: Backend, stream: bool, reply: Reply) -> None:
    async with client(backend) as http:
        found = await ask(http, body(stream=stream))
    assert found == reply
    assert found.by_router


def answering(answer: httpx.Response | httpx.HTTPError) -> httpx.AsyncClient:
    def handle(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, httpx.HTTPError):
            raise answer
        return answer

    return httpx.AsyncClient(base_url="http://router", transport=httpx.MockTransport(handle))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (httpx.Response(500, text="Internal Server Error"), "refused", 500),
        (httpx.ReadError("reset"), "unanswered", None),
    ],
)
async def test_what_the_router_has_not_said_is_told_apart(
    answer: httpx.Response | httpx.HTTPError, outcome: str, status: int | None, stream: bool
) -> None:
    async with answering(answer) as http:
        reply = await ask(http, body(stream=stream))
    assert (reply.outcome, reply.status, reply.by_router) == (outcome, status, False)


async def test_a_stream_without_an_end_is_cut() -> None:
    async with answering(httpx.Response(200, text='data: {"choices": []}\n\n')) as http:
        reply = await ask(http, body(stream=True))
    assert (reply.outcome, reply.by_router) == ("cut", False)


async def test_an_answer_is_compared_with_the_one_that_is_known() -> None:
    async with client(FakeBackend()) as http:
        replies = [await put(http, Question(body(), text)) for text in ("a red square", None, "a blue square")]
    assert [one.outcome for one in replies] == ["answered", "answered", "differs"]


async def test_what_cannot_be_repeated_has_no_known_answer() -> None:
    async with client(FakeBackend()) as http:
        questions = await known_questions(http, "blip-large")
    known = {bool(one.body.get("temperature") and "seed" not in one.body): one.text for one in questions}
    assert known == {False: "a red square", True: None}
    assert {one.streams for one in questions} == {bool(kind.get("stream")) for kind in KINDS} == {True, False}
    assert LONG["temperature"] == 0
