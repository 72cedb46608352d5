"""How requests end, as the programs see it that break a system on purpose."""

from __future__ import annotations

import httpx
import pytest

from benchmarks.asking import KINDS, LONG, Question, Reply, ask, falling_back, known_questions, put
from router.backends.base import Backend
from tests.router.composition.world import Models, asking
from tests.router.world import FakeBackend, Step, body, client, script, words
from vlm.errors import EngineFailure, ModelNotReady

pytestmark = pytest.mark.anyio
GOOD = script(words())
MODEL = body()["model"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("backend", "stream", "reply"),
    [
        (FakeBackend(), False, Reply("answered", "a red square", model=MODEL)),
        (FakeBackend(), True, Reply("answered", "a red square", model=MODEL)),
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


@pytest.mark.parametrize(
    ("plays", "text", "outcome"),
    [
        ({}, "a red square", "answered"),
        ({"blip-large": [ModelNotReady("Lost.")]}, "another", "answered"),
        ({"blip-large": [ModelNotReady("Lost.")]}, "a red square", "differs"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_another_model_may_answer(plays: dict[str, list[Step]], text: str, outcome: str, stream: bool) -> None:
    models = Models({"florence-2-base": script(words("another")), **plays})
    first, second = (
        [Question(asking(model, stream=stream), known)]
        for model, known in (("blip-large", "a red square"), ("florence-2-base", text if plays else "?"))
    )
    async with client(models) as http:
        reply = await put(http, falling_back(first, second)[0])
    assert reply.outcome == outcome
    assert reply.model == ("florence-2-base" if plays else "blip-large")


async def test_what_the_answer_says_of_its_models_is_looked_at() -> None:
    routing = {"chosen": "a", "tried": [{"model": "a", "status": "answered"}, {"model": "b", "status": "answered"}]}
    told = {"model": "a", "choices": [{"message": {"content": "x"}}], "x_gigarouter": {"routing": routing}}
    async with answering(httpx.Response(200, json=told)) as http:
        assert (await put(http, Question({}, "x"))).outcome == "differs"
