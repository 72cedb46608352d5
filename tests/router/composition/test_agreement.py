"""What several models agree on, over HTTP; and that it is what the library says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from router.app import create_app
from router.backends.base import LocalBackend
from tests.images import data_url, scene
from tests.listening import listening
from tests.router.composition.world import CONFIG, Models, asking, routing
from tests.router.world import BALL, KITE, Bad, Json, check_error, events, geometry, image_part, post, user
from tests.router.world import client as router
from vlm.consensus import Vote, agreed, weight_of
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import EngineFailure, Overloaded
from vlm.grounding_json import to_json
from vlm.loading import load
from vlm.models.cards import cards
from vlm.types import Chunk, Request, Task

pytestmark = pytest.mark.anyio

DETECT: Json = {"name": "detect", "labels": ["ball", "kite"]}
REQUEST = asking("consensus", task=DETECT)
ASKED = ("florence-2-base", "kosmos-2", "moondream-2")


def plays(*answers: Any) -> dict[str, list[Any]]:
    return dict(zip(ASKED, ([Chunk.whole(one)] for one in answers), strict=True))


async def test_two_of_three_agree() -> None:
    models = Models(plays(geometry(BALL, KITE), geometry(BALL), geometry(KITE)))
    answer = await post(models, REQUEST, CONFIG)
    told = answer.json()
    assert (told["model"], answer.headers["x-gigarouter-model"]) == ("consensus", "consensus")
    assert sorted(models.names_asked) == [*ASKED]
    kite, ball = told["choices"][0]["message"]["grounding"]["objects"]
    assert ball["consensus"] == {"votes": 2, "models": ["florence-2-base", "kosmos-2"], "spread": 0.0}
    assert (ball["score_type"], ball["score"], kite["label"]) == ("agreement", 0.7273, "kite")
    assert kite["score"] == 0.8182, "that of the two models whose cards are the best"
    assert json.loads(told["choices"][0]["message"]["content"])["objects"][0]["votes"] == 2
    assert [one["model"] for one in told["x_gigarouter"]["results"]] == [*ASKED]
    assert told["usage"]["completion_tokens"] == 9
    assert routing(answer)["chosen"] is None


@pytest.mark.parametrize(("votes", "labels"), [(1, ["ball", "kite"]), (2, ["ball"]), (3, [])])
async def test_min_votes(votes: int, labels: list[str]) -> None:
    models = Models(plays(geometry(BALL), geometry(BALL), geometry(KITE)))
    found = (await post(models, {**REQUEST, "min_votes": votes}, CONFIG)).json()["choices"][0]["message"]["grounding"]
    assert [one["label"] for one in found["objects"]] == labels


async def test_a_stream_is_one_piece() -> None:
    models = Models(plays(geometry(BALL), geometry(BALL), geometry(KITE)))
    told = events((await post(models, {**REQUEST, "stream": True}, CONFIG)).text)
    deltas = [one["choices"][0]["delta"] for one in told]
    assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
    assert [len(delta["grounding"]["objects"]) for delta in deltas if "grounding" in delta] == [1]


async def test_one_that_fails_has_no_vote() -> None:
    models = Models({**plays(geometry(BALL), geometry(BALL), geometry(BALL)), "kosmos-2": [EngineFailure("It broke.")]})
    told = (await post(models, REQUEST, CONFIG)).json()
    assert told["choices"][0]["message"]["grounding"]["objects"][0]["consensus"]["votes"] == 2
    assert told["x_gigarouter"]["results"][1]["error"]["code"] == "engine_failure"


async def test_too_few_answer() -> None:
    models = Models({"florence-2-base": [Overloaded("It is full.")], "kosmos-2": [EngineFailure("It broke.")]})
    error = check_error(await post(models, REQUEST, CONFIG), 503, "overloaded", None)
    assert error["message"].startswith("2 models must agree, and 1 answered. florence-2-base: It is full.; kosmos-2:")


BAD = [
    Bad("no task", asking("consensus"), "missing_required_parameter", "task"),
    Bad("a task of words", asking("consensus", task="caption"), "unsupported_task", "task"),
    Bad("outlines", asking("consensus", task="segment"), "unsupported_task", "task"),
    Bad("one model", asking("consensus", task=DETECT, models=["kosmos-2"]), "invalid_value", "models"),
    Bad("one model with the task", asking("consensus", task="ocr_regions"), "invalid_value", "models"),
    Bad("one lacks the task", asking("consensus", task=DETECT, models=["kosmos-2", "blip-large"]), "unsupported_task",
        "models[1]"),
    Bad("the same twice", asking("consensus", task=DETECT, models=["kosmos-2", "kosmos-2"]), "invalid_value",
        "models[1]"),
    Bad("more votes than models", asking("consensus", task=DETECT, min_votes=4), "invalid_value", "min_votes"),
    Bad("no votes", asking("consensus", task=DETECT, min_votes=0), "invalid_value", "min_votes"),
    Bad("votes in words", asking("consensus", task=DETECT, min_votes="two"), "invalid_type", "min_votes"),
    Bad("votes of one model", asking("kosmos-2", min_votes=2), "invalid_value", "min_votes"),
    Bad("votes in compare", asking("compare", task="caption", min_votes=2), "invalid_value", "min_votes"),
    Bad("several answers", asking("consensus", task=DETECT, n=2), "invalid_value", "n"),
    Bad("several tasks", asking("consensus", tasks=["detect", "point"]), "invalid_value", "tasks"),
    Bad("log-probabilities", asking("consensus", task=DETECT, logprobs=True), "invalid_value", "logprobs"),
    Bad("the raw output", asking("consensus", task="raw"), "invalid_value", "task"),
    Bad("the raw output beside", asking("consensus", task=DETECT, include_raw=True), "invalid_value", "include_raw"),
    Bad("a consensus within", asking("consensus", task=DETECT, models=["consensus", "kosmos-2"]), "invalid_value",
        "models[0]"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
async def test_the_impossible_is_refused_at_the_door(bad: Bad) -> None:
    models = Models()
    check_error(await post(models, bad.request, CONFIG), bad.status, bad.code, bad.param)
    assert models.asked == []


async def test_over_http_it_is_what_the_library_says() -> None:
    config = EngineConfig(cache_bytes=64 * 1024**2)
    engines = {name: Engine(load(f"miniatures/{name}", dtype="float32", device="cpu"), config) for name in ASKED}
    for engine in engines.values():
        engine.start()
    request = asking("consensus", task={"name": "detect", "labels": ["circle", "square"]}, temperature=0)
    request["messages"] = [user(image_part(data_url(scene(7))))]
    try:
        over_http = await post(LocalBackend(engines), request)
        task = Task("detect", labels=("circle", "square"))
        votes = [
            Vote(name, engine.answer(Request(scene(7), task=task)).grounding, weight_of(cards()[name], "detect"))
            for name, engine in engines.items()
        ]
    finally:
        for engine in engines.values():
            engine.stop()
    found = over_http.json()["choices"][0]["message"]["grounding"]["objects"]
    assert found
    assert [_rounded(one) for one in found] == [_rounded(one) for one in to_json(agreed(votes))["objects"]]


def _rounded(found: Json) -> Json:
    """Scores differ by rounding with what else is in the batch."""
    return {**found, "score": round(found["score"], 2)}


# Another format, and OpenAI's client


@pytest.mark.parametrize("stream", [False, True])
async def test_the_responses_api_has_it_too(stream: bool) -> None:
    models = Models(plays(geometry(BALL), geometry(BALL), geometry(KITE)))
    image = {"type": "input_image", "image_url": REQUEST["messages"][0]["content"][0]["image_url"]["url"]}
    request = {key: value for key, value in REQUEST.items() if key != "messages"}
    request |= {"input": [{"role": "user", "content": [image]}], "stream": stream}
    async with router(models, CONFIG) as http:
        answer = await http.post("/v1/responses", json=request)
    assert answer.status_code == 200, answer.text
    whole = last_event(answer.text)["response"] if stream else answer.json()
    [found] = json.loads(whole["output"][0]["content"][0]["text"])["objects"]
    assert (whole["model"], found["label"], found["votes"]) == ("consensus", "ball", 2)
    assert [one["model"] for one in whole["x_gigarouter"]["results"]] == [*ASKED]


@pytest.fixture(params=[False, True], ids=["lenient", "strict"])
def client(request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    models = Models(plays(geometry(BALL), geometry(BALL), geometry(KITE)))
    with (
        listening(create_app(models, CONFIG)) as url,
        OpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20, _strict_response_validation=request.param
        ) as sdk,
    ):
        yield sdk


def test_the_sdk_streams_it(client: OpenAI) -> None:
    asked: Any = {"extra_body": {"task": DETECT}, "model": "consensus", "messages": REQUEST["messages"]}
    with client.chat.completions.stream(**asked) as stream:
        for _ in stream:
            pass
        final: Any = stream.get_final_completion()
    [choice] = final.choices
    assert choice.message.grounding["objects"][0]["consensus"]["models"] == ["florence-2-base", "kosmos-2"]
    assert json.loads(choice.message.content)["objects"][0]["label"] == "ball"


def last_event(text: str) -> Json:
    event: Json = json.loads(text.strip().splitlines()[-1].removeprefix("data: "))
    return event
