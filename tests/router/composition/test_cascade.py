"""The dearer model only where the cheaper one's answer is not good enough, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import httpx
import pytest

from router.config import RouterConfig
from tests.clock import run_clocked
from tests.router.composition.world import CONFIG, Json, Models, asking, routing
from tests.router.world import Bad, Step, check_error, client, events, geometry, post, script, words
from vlm.errors import EngineFailure, InvalidRequest, Overloaded, VlmError
from vlm.model_info import CalibratedTask
from vlm.types import Box, Completion, Detection, ModelInfo

pytestmark = pytest.mark.anyio

CHEAP, DEAR = "florence-2-base", "moondream-2"
TASKS = (
    CalibratedTask("detect", 0.8, ((DEAR, 0.6),)),
    CalibratedTask("query", 0.7),
    CalibratedTask("caption", 0.7),
    CalibratedTask("point", None),
)


class Calibrated(Models):
    """Models of which some were calibrated; of one without ``infos`` it is not known what is loaded."""

    def __init__(
        self,
        plays: Mapping[str, Sequence[Step]] | None = None,
        *,
        calibrated: Sequence[str] = (CHEAP,),
        unknown: Sequence[str] = (),
        pauses_s: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(plays, pauses_s=pauses_s)
        families = {"blip-large": "blip", CHEAP: "florence2", "kosmos-2": "kosmos2", DEAR: "moondream2"}
        self.statuses = [
            status
            if status.name in unknown
            else replace(status, info=_info(families[status.name], TASKS if status.name in calibrated else ()))
            for status in self.statuses
        ]


def _info(family: str, calibrated: tuple[CalibratedTask, ...]) -> ModelInfo:
    return ModelInfo(family, family, None, 1, "float32", "cpu", calibrated=calibrated)


def found(*confidences: float | None) -> Completion:
    """An answer of so many objects."""
    box = Box(0.1, 0.1, 0.2, 0.2)
    objects = [Detection("box", label="cat", score=0.1, confidence=one, box=box) for one in confidences]
    grounding = replace(geometry().grounding, detections=tuple(objects))
    return replace(geometry(), grounding=grounding)


def text(confidence: float | None, content: str = "a red square", task: str = "query") -> Completion:
    """An answer of a text."""
    answer = words(content)
    return replace(answer, grounding=replace(answer.grounding, task=task), confidence=confidence)


REQUEST = asking("cascade", models=[CHEAP, DEAR], task={"name": "detect", "labels": ["cat"]})
QUESTION = asking("cascade", "What is it?", models=["kosmos-2", DEAR], task={"name": "query", "text": "What is it?"})


def told(answer: httpx.Response, *, stream: bool = False) -> Json:
    """What an answer says of itself, the last time that it says it."""
    if not stream:
        whole: Json = answer.json()
        return whole
    return next(one for one in reversed(events(answer.text)) if one.get("x_gigarouter"))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_confident_answer_is_taken_and_nobody_else_is_asked(stream: bool) -> None:
    models = Calibrated({CHEAP: script(found(0.9, 0.7))})
    answer = await post(models, {**REQUEST, "stream": stream}, CONFIG)
    assert answer.status_code == 200, answer.text
    assert models.names_asked == [CHEAP]
    said_of_it = told(answer, stream=stream)
    assert said_of_it["model"] == answer.headers["x-gigarouter-model"] == CHEAP
    route = said_of_it["x_gigarouter"]["routing"]
    assert (route["mode"], route["chosen"], route["cost_usd"]) == ("cascade", CHEAP, 0.0001)
    (only,) = route["tried"]
    assert (only["status"], only["reason"], only["confidence"], only["min_confidence"]) == ("answered", None, 0.7, 0.6)


@pytest.mark.parametrize(
    ("first", "reason", "confidence"),
    [
        (found(0.9, 0.5), "low_confidence", 0.5),
        (found(), "found_nothing", None),
        (found(0.9, None), "not_calibrated", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_model_answers_where_that_is_not_good_enough(
    first: Completion, reason: str, confidence: float | None, stream: bool
) -> None:
    models = Calibrated({CHEAP: script(first), DEAR: script(found(0.1))})
    answer = await post(models, {**REQUEST, "stream": stream}, RouterConfig(prices={CHEAP: "0.1", DEAR: "0.6"}))
    assert models.names_asked == [CHEAP, DEAR]
    assert models.running == 0
    said_of_it = told(answer, stream=stream)
    assert said_of_it["model"] == DEAR
    route = said_of_it["x_gigarouter"]["routing"]
    one, two = route["tried"]
    assert (one["status"], one["reason"], one["confidence"]) == ("answered", reason, confidence)
    assert (two["status"], two["reason"], two["min_confidence"]) == ("answered", None, None)
    assert (one["cost_usd"], two["cost_usd"], route["cost_usd"]) == (0.0001, 0.0006, 0.0007)


async def test_usage_is_that_of_all_who_answered() -> None:
    models = Calibrated({CHEAP: script(found(0.1)), DEAR: script(found(0.1))})
    usage = (await post(models, REQUEST, CONFIG)).json()["usage"]
    assert (usage["completion_tokens"], usage["prompt_tokens"]) == (6, 2 * 580)


async def test_min_confidence_of_the_request_comes_first() -> None:
    models = Calibrated({CHEAP: script(found(0.5))})
    answer = await post(models, {**REQUEST, "min_confidence": 0.5}, CONFIG)
    assert models.names_asked == [CHEAP]
    assert routing(answer)["tried"][0]["min_confidence"] == 0.5


async def test_all_but_the_last_are_asked_for_a_whole_answer_and_its_probabilities() -> None:
    models = Calibrated({CHEAP: script(found(0.1))})
    await post(models, {**REQUEST, "stream": True}, CONFIG)
    first, last = (request for _, request in models.asked)
    assert (first.stream, first.sampling.logprobs) == (False, True)
    assert (last.stream, last.sampling.logprobs) == (True, False)


async def test_a_text_is_judged_by_its_own_confidence() -> None:
    for confidence, asked in ((0.9, 1), (0.2, 2)):
        models = Calibrated({"kosmos-2": script(text(confidence))}, calibrated=["kosmos-2"])
        answer = await post(models, QUESTION, CONFIG)
        assert answer.status_code == 200, answer.text
        assert len(models.asked) == asked
        assert routing(answer)["tried"][0]["confidence"] == confidence
        assert answer.json()["choices"][0]["logprobs"] is None


async def test_logprobs_of_an_answer_are_shown_if_they_are_wanted() -> None:
    models = Calibrated({"kosmos-2": script(text(0.9))}, calibrated=["kosmos-2"])
    answer = await post(models, {**QUESTION, "logprobs": True}, CONFIG)
    assert len(answer.json()["choices"][0]["logprobs"]["content"]) == 3


async def test_an_empty_text_is_nothing() -> None:
    models = Calibrated({"kosmos-2": script(text(0.9, ""))}, calibrated=["kosmos-2"])
    answer = await post(models, QUESTION, CONFIG)
    assert routing(answer)["tried"][0]["reason"] == "found_nothing"


async def test_a_model_that_fails_is_passed_over() -> None:
    models = Calibrated({CHEAP: [Overloaded("full")]})
    answer = await post(models, REQUEST, CONFIG)
    assert models.names_asked == [CHEAP, DEAR]
    first = routing(answer)["tried"][0]
    assert (first["status"], first["reason"], first["cost_usd"]) == ("failed", "overloaded", 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_held_back_is_better_than_none(stream: bool) -> None:
    models = Calibrated({CHEAP: script(found(0.3)), DEAR: [EngineFailure("broke")]})
    answer = await post(models, {**REQUEST, "stream": stream}, CONFIG)
    assert answer.status_code == 200, answer.text
    said_of_it = told(answer, stream=stream)
    route = said_of_it["x_gigarouter"]["routing"]
    assert said_of_it["model"] == route["chosen"] == CHEAP
    assert [one["reason"] for one in route["tried"]] == ["low_confidence", "engine_failure"]


def test_an_answer_that_was_held_back_is_sent_where_the_last_model_is_late() -> None:
    models = Calibrated({CHEAP: script(found(0.3))}, pauses_s={DEAR: 10_000.0})
    answer = run_clocked(post(models, REQUEST, RouterConfig(request_timeout_s=60)))
    assert answer.status_code == 200, answer.text
    assert routing(answer)["chosen"] == CHEAP
    assert [one["reason"] for one in routing(answer)["tried"]] == ["low_confidence", "timeout"]
    assert models.running == 0


async def test_where_all_fail_the_error_tells_of_all() -> None:
    models = Calibrated({CHEAP: [Overloaded("The first is full.")], DEAR: [EngineFailure("It broke.")]})
    error = check_error(await post(models, REQUEST, CONFIG), 503, "overloaded", None)
    assert error["message"] == "No model could answer. florence-2-base: The first is full.; moondream-2: It broke."


async def test_a_request_that_is_at_fault_is_not_tried_again() -> None:
    faulty: VlmError = InvalidRequest("wrong", "task")
    models = Calibrated({CHEAP: [faulty]})
    check_error(await post(models, REQUEST, CONFIG), 400, None, "task")
    assert models.names_asked == [CHEAP]


def test_a_model_that_is_silent_leaves_time_for_the_next() -> None:
    models = Calibrated(pauses_s={CHEAP: 10_000.0})

    async def ask() -> httpx.Response:
        return await post(models, REQUEST, RouterConfig(request_timeout_s=60))

    first = routing(run_clocked(ask()))["tried"][0]
    assert (first["reason"], first["latency_ms"]) == ("timeout", pytest.approx(30_000, abs=1))


async def test_without_models_the_cheapest_comes_first_and_then_the_best_dearer_one() -> None:
    models = Calibrated({CHEAP: script(found(0.1))}, calibrated=[CHEAP, "kosmos-2"])
    answer = await post(
        models, {**REQUEST, "models": None}, RouterConfig(prices={CHEAP: "0.1", "kosmos-2": "0.6", DEAR: "0.6"})
    )
    assert models.names_asked == [CHEAP, DEAR]
    assert routing(answer)["why"] == "the cheapest model first, and then the best of the dearer ones"


async def test_what_a_starting_model_has_loaded_is_seen_in_its_answer() -> None:
    models = Calibrated({CHEAP: script(found(0.9))}, unknown=[CHEAP])
    answer = await post(models, {**REQUEST, "min_confidence": 0.5}, CONFIG)
    assert models.names_asked == [CHEAP]
    models = Calibrated({CHEAP: script(found(None))}, unknown=[CHEAP])
    answer = await post(models, REQUEST, CONFIG)
    assert routing(answer)["tried"][0]["reason"] == "not_calibrated"


async def test_a_dry_run_says_whom_it_would_ask() -> None:
    models = Calibrated()
    answer = await post(models, {**REQUEST, "dry_run": True}, CONFIG)
    assert [(one["model"], one["status"]) for one in routing(answer)["tried"]] == [
        (CHEAP, "would_ask"),
        (DEAR, "would_ask"),
    ]
    assert not models.asked


@pytest.mark.parametrize("stream", [False, True])
async def test_the_responses_api_has_it_too(stream: bool) -> None:
    models = Calibrated({CHEAP: script(found(0.1)), DEAR: script(found(0.2))})
    image = {"type": "input_image", "image_url": REQUEST["messages"][0]["content"][0]["image_url"]["url"]}
    request = {key: value for key, value in REQUEST.items() if key != "messages"}
    request |= {"input": [{"role": "user", "content": [image]}], "stream": stream}
    async with client(models, CONFIG) as http:
        answer = await http.post("/v1/responses", json=request)
    assert answer.status_code == 200, answer.text
    whole = (
        json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))["response"] if stream else answer.json()
    )
    assert whole["model"] == DEAR
    assert [one["reason"] for one in whole["x_gigarouter"]["routing"]["tried"]] == ["low_confidence", None]


BAD = [
    Bad("not served", {**REQUEST, "models": [CHEAP, "moondraem-2"]}, "model_not_found", "models[1]", 404),
    Bad("itself", {**REQUEST, "models": [CHEAP, "cascade"]}, "invalid_value", "models[1]"),
    Bad("another mode", {**REQUEST, "models": ["auto", DEAR]}, "invalid_value", "models[0]"),
    Bad("twice", {**REQUEST, "models": [CHEAP, CHEAP]}, "invalid_value", "models[1]"),
    Bad("a task in models", {**REQUEST, "models": [CHEAP, f"{DEAR}:detect"]}, "invalid_value", "models[1]"),
    Bad("one model", {**REQUEST, "models": [CHEAP]}, "invalid_value", "models", words="two models"),
    Bad("a stage lacks the task", {**REQUEST, "models": ["blip-large", CHEAP]}, "unsupported_task", "models[0]"),
    Bad("the last lacks the task", {**REQUEST, "models": [CHEAP, "blip-large"]}, "unsupported_task", "models[1]"),
    Bad("not calibrated", {**REQUEST, "models": [DEAR, CHEAP]}, "invalid_value", "models[0]", words="not calibrated"),
    Bad("not for the task", {**REQUEST, "task": {"name": "ground", "text": "a"}}, "invalid_value", "models[0]"),
    Bad("no threshold", {**REQUEST, "task": {"name": "point", "labels": ["cat"]}}, "invalid_value", "min_confidence"),
    Bad("nobody calibrated", {**QUESTION, "models": None}, "invalid_value", "model"),
    Bad("above 1", {**REQUEST, "min_confidence": 1.5}, "invalid_value", "min_confidence"),
    Bad("a word", {**REQUEST, "min_confidence": "high"}, "invalid_type", "min_confidence"),
    Bad("without cascade", {**REQUEST, "model": CHEAP, "min_confidence": 0}, "invalid_value", "min_confidence"),
    Bad("with auto", {**REQUEST, "model": "auto", "min_confidence": 0.5}, "invalid_value", "min_confidence"),
    Bad("n", {**REQUEST, "n": 2}, "invalid_value", "n"),
    Bad("tasks", {**REQUEST, "task": None, "tasks": ["caption"]}, "invalid_value", "tasks"),
    Bad("prefer", {**REQUEST, "prefer": "cheap"}, "invalid_value", "prefer"),
    Bad("too dear", {**REQUEST, "max_price": {"image": 0.00001}}, "invalid_value", "max_price.image"),
    Bad("one is too dear", {**REQUEST, "max_price": {"image": 0.0002}}, "invalid_value", "models"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
async def test_what_is_impossible_is_refused_at_the_door(bad: Bad) -> None:
    models = Calibrated()
    answer = await post(models, bad.request, CONFIG)
    error = check_error(answer, bad.status, bad.code, bad.param)
    assert bad.words in error["message"]
    assert not models.asked
