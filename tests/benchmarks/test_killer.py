"""The benchmark that kills replicas tells how each request ended, and configures what it says."""

from __future__ import annotations

import pytest

from benchmarks.killer import KINDS, LONG, Seen, ask, config_of, known_questions, report
from router.backends.base import Backend
from tests.router.world import FakeBackend, body, client, script, words
from vlm.errors import EngineFailure, ModelNotReady

pytestmark = pytest.mark.anyio
GOOD = script(words())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(
    ("backend", "stream", "ended"),
    [
        (FakeBackend(), False, ("answered", "a red square")),
        (FakeBackend(), True, ("answered", "a red square")),
        (FakeBackend([ModelNotReady("Lost.")]), False, ("refused", "Lost.")),
        (FakeBackend([ModelNotReady("Lost.")]), True, ("refused", "Lost.")),
        (FakeBackend([*GOOD[:1], EngineFailure("Failed.")]), True, ("cut", "Failed.")),
    ],
)
async def test_each_end_has_its_name(backend: Backend, stream: bool, ended: tuple[str, str]) -> None:
    async with client(backend) as http:
        assert await ask(http, body(stream=stream)) == ended


async def test_what_cannot_be_repeated_has_no_known_answer() -> None:
    async with client(FakeBackend()) as http:
        questions = await known_questions(http, "blip-large")
    known = {bool(one.body.get("temperature") and "seed" not in one.body): one.text for one in questions}
    assert known == {False: "a red square", True: None}
    assert {bool(kind.get("stream")) for kind in KINDS} == {True, False}


def test_the_config_has_one_model_and_its_replicas() -> None:
    config = config_of("kosmos-2", 3, {"retry_floor": 5})
    router, model = config["applications"]
    assert (router["args"]["required_models"], router["args"]["retry_floor"]) == (["kosmos-2"], 5)
    assert (model["name"], [one["num_replicas"] for one in model["deployments"]]) == ("kosmos-2", [3])


def test_the_report_counts() -> None:
    seen = Seen(streamed=2, kills=[1.0], recovered=[2.5], seconds=[0.5, 1.5])
    seen.outcomes.update({"answered": 2, "cut": 1})
    seen.errors["cut: Failed."] += 1
    lines = list(report(seen, "x tries a request again\nx goes on with a stream\n"))
    assert [line.split()[-1] for line in lines[:7]] == ["streamed)", "1", "0", "1", "0", "1", "1"]
    assert lines[-1].endswith("1 x cut: Failed.")
    assert LONG["temperature"] == 0
