"""Steps about what was found before: over HTTP with models that play parts, and with the miniatures."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.backends.base import LocalBackend
from router.composition.pipeline import in_whole, part_of
from router.config import RouterConfig
from tests.clock import run_clocked
from tests.images import data_url, scene
from tests.router.composition.world import CONFIG, Models, asking, routing
from tests.router.world import (
    BALL,
    Bad,
    Json,
    check_error,
    events,
    geometry,
    image_part,
    post,
    text_part,
    user,
    words,
)
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import EngineFailure, Overloaded, VlmError
from vlm.loading import load
from vlm.types import Box, Chunk, Completion, Detection, Point, Request

pytestmark = pytest.mark.anyio

LEFT = Detection("box", label="cup", score=0.5, box=Box(0.0, 0.0, 0.5, 0.5))
RIGHT = Detection("box", label="hat", score=0.25, box=Box(0.5, 0.5, 1.0, 1.0))
DOT = Detection("point", label="dot", point=Point(0.5, 0.5))
WHOLE = Box(0.0, 0.0, 1.0, 1.0)

DETECT: Json = {"model": "florence-2-base", "task": "detect"}
QUERY: Json = {"for_each": "objects", "model": "moondream-2", "task": {"name": "query", "text": "What is it?"}}
REQUEST = asking("pipeline", pipeline=[DETECT, QUERY])


class Answering(Models):
    """Models that answer each request by a function of the model and the request."""

    def __init__(self, answer: Callable[[str, Request], Completion | VlmError], pause_s: float = 0.0) -> None:
        super().__init__()
        self.answer = answer
        self.pause_s = pause_s

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        self.plays = {model: [_step(self.answer(model, request))]}
        self.pauses_s = {model: self.pause_s}
        async with aclosing(super().generate(model, request)) as chunks:
            async for chunk in chunks:
                yield chunk


def _step(made: Completion | VlmError) -> Chunk | VlmError:
    return Chunk.whole(made) if isinstance(made, Completion) else made


def two_objects(model: str, request: Request) -> Completion | VlmError:
    if request.crop is None:
        return geometry(LEFT, RIGHT)
    return words("a cup" if request.crop.x_min == 0 else "a hat")


def objects(answer: Any) -> list[Json]:
    found: list[Json] = answer.json()["choices"][0]["message"]["grounding"]["objects"]
    return found


async def test_each_object_has_its_answer() -> None:
    models = Answering(two_objects)
    answer = await post(models, REQUEST, CONFIG)
    assert answer.json()["model"] == "pipeline"
    assert answer.headers["x-gigarouter-model"] == "pipeline"
    assert [one["answers"] for one in objects(answer)] == [
        [{"model": "moondream-2", "task": "query", "text": text, "objects": [], "error": None}]
        for text in ("a cup", "a hat")
    ]
    assert [request.crop for _, request in models.asked] == [None, LEFT.box, RIGHT.box]
    assert {request.stream for _, request in models.asked} == {False}
    assert answer.json()["usage"]["completion_tokens"] == 9
    tried = routing(answer)["tried"]
    assert [(one["model"], one["calls"], one["failed_calls"]) for one in tried] == [
        ("florence-2-base", 1, 0),
        ("moondream-2", 2, 0),
    ]
    assert (
        '"answers":[{"model":"moondream-2","task":"query","text":"a cup"}]'
        in answer.json()["choices"][0]["message"]["content"]
    )


async def test_a_stream_has_the_same_in_one_piece() -> None:
    answer = await post(Answering(two_objects), {**REQUEST, "stream": True}, CONFIG)
    found = [
        one["choices"][0]["delta"]["grounding"]
        for one in events(answer.text)
        if "grounding" in one["choices"][0]["delta"]
    ]
    whole = await post(Answering(two_objects), REQUEST, CONFIG)
    assert found == [whole.json()["choices"][0]["message"]["grounding"]]


async def test_what_is_found_in_a_part_is_placed_in_the_whole() -> None:
    def answer(model: str, request: Request) -> Completion:
        return geometry(RIGHT) if request.crop is None else geometry(replace(BALL, box=Box(0.0, 0.5, 0.5, 1.0)))

    models = Answering(answer)
    step = {"for_each": "objects", "model": "florence-2-base", "task": "detect", "crop": 1.5}
    found = objects(await post(models, asking("pipeline", pipeline=[DETECT, step]), CONFIG))
    part = models.asked[1][1].crop
    assert part is not None
    assert (part.x_min, part.y_min, part.x_max, part.y_max) == (0.375, 0.375, 1.0, 1.0)
    [inner] = found[0]["answers"][0]["objects"]
    assert inner["box"] == pytest.approx([0.375, 0.6875, 0.6875, 1.0])
    assert inner["box_px"] == pytest.approx([240, 330, 440, 480])


async def test_three_steps() -> None:
    def answer(model: str, request: Request) -> Completion:
        return words("round") if model == "moondream-2" else geometry(BALL)

    steps = [DETECT, {"for_each": "objects", "model": "florence-2-base", "task": "detect"}, QUERY]
    models = Answering(answer)
    found = objects(await post(models, asking("pipeline", pipeline=steps), CONFIG))
    [inner] = found[0]["answers"][0]["objects"]
    assert inner["answers"][0]["text"] == "round"
    assert models.names_asked == ["florence-2-base", "florence-2-base", "moondream-2"]


async def test_a_task_with_a_region_is_told_the_box() -> None:
    models = Answering(
        lambda _model, request: geometry(LEFT) if request.task and request.task.region is None else words("SALE")
    )
    step = {"for_each": "objects", "model": "florence-2-base", "task": "region_ocr"}
    found = objects(await post(models, asking("pipeline", pipeline=[DETECT, step]), CONFIG))
    _, request = models.asked[1]
    assert request.task is not None
    assert (request.crop, request.task.region) == (None, LEFT.box)
    assert found[0]["answers"][0]["text"] == "SALE"


async def test_one_that_fails_leaves_the_others() -> None:
    def answer(model: str, request: Request) -> Completion | VlmError:
        return EngineFailure("It broke.") if request.crop == RIGHT.box else two_objects(model, request)

    made = await post(Answering(answer), REQUEST, CONFIG)
    good, bad = (one["answers"][0] for one in objects(made))
    assert (good["text"], good["error"]) == ("a cup", None)
    assert (bad["text"], bad["error"]) == (None, {"code": "engine_failure", "message": "It broke."})
    step = routing(made)["tried"][1]
    assert (step["status"], step["reason"], step["calls"], step["failed_calls"]) == ("answered", "engine_failure", 2, 1)


async def test_the_first_step_fails() -> None:
    made = await post(Answering(lambda *_: EngineFailure("It broke.")), REQUEST, CONFIG)
    check_error(made, 500, "engine_failure", None)


def test_what_is_not_answered_in_time_says_so() -> None:
    models = Answering(two_objects, pause_s=20.0)

    async def ask() -> httpx.Response:
        return await post(models, REQUEST, RouterConfig(request_timeout_s=30))

    answer = run_clocked(ask())
    assert answer.status_code == 200
    assert {one["answers"][0]["error"]["code"] for one in objects(answer)} == {"timeout"}
    assert models.running == 0


def test_a_call_that_finds_no_room_is_made_again() -> None:
    refused: list[Box] = []

    def answer(model: str, request: Request) -> Completion | VlmError:
        if request.crop is not None and request.crop not in refused:
            refused.append(request.crop)
            return Overloaded("It is full.")
        return two_objects(model, request)

    async def ask() -> httpx.Response:
        return await post(Answering(answer), REQUEST, CONFIG)

    assert [one["answers"][0]["text"] for one in objects(run_clocked(ask()))] == ["a cup", "a hat"]


async def test_limits() -> None:
    many = tuple(replace(LEFT, label=str(at)) for at in range(100))
    models = Answering(lambda _model, request: geometry(*many) if request.crop is None else words())
    found = objects(await post(models, REQUEST, CONFIG))
    assert [bool(one["answers"]) for one in found] == [True] * 64 + [False] * 36
    limited = asking("pipeline", pipeline=[DETECT, {**QUERY, "limit": 3}])
    assert sum(bool(one["answers"]) for one in objects(await post(models, limited, CONFIG))) == 3


async def test_objects_without_a_box_are_left_out() -> None:
    models = Answering(lambda _model, request: geometry(DOT, LEFT) if request.crop is None else words())
    assert [bool(one["answers"]) for one in objects(await post(models, REQUEST, CONFIG))] == [False, True]


async def test_a_dry_run() -> None:
    models = Answering(two_objects)
    told = routing(await post(models, {**REQUEST, "dry_run": True}, CONFIG))
    assert [one["model"] for one in told["tried"]] == ["florence-2-base", "moondream-2"]
    assert models.asked == []


# Geometry


boxes = st.tuples(*[st.floats(0, 1)] * 4).map(
    lambda four: Box(min(four[0], four[1]), min(four[2], four[3]), max(four[0], four[1]), max(four[2], four[3]))
)


@given(boxes, st.floats(1, 8), st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
def test_a_part_is_within_the_image_and_rounds_to_itself(box: Box, times: float, size: tuple[int, int]) -> None:
    part = part_of(box, times, size)
    assert 0 <= part.x_min < part.x_max <= 1
    assert 0 <= part.y_min < part.y_max <= 1
    left, top, right, bottom = part.pixels(size)
    assert Box(left / size[0], top / size[1], right / size[0], bottom / size[1]) == part


@given(boxes, boxes)
def test_what_is_found_in_a_part_stays_in_it(found: Box, part: Box) -> None:
    placed = in_whole(Detection("box", box=found), part).box
    assert placed is not None
    slack = 1e-9
    assert part.x_min - slack <= placed.x_min <= placed.x_max <= part.x_max + slack
    assert part.y_min - slack <= placed.y_min <= placed.y_max <= part.y_max + slack


def test_all_of_a_part_is_the_part() -> None:
    part = Box(0.25, 0.5, 0.75, 1.0)
    corners = (Point(0, 0), Point(1, 1))
    found = Detection("quad", box=WHOLE, point=Point(0.5, 0.5), quad=corners, polygons=(corners,))
    placed = in_whole(found, part)
    assert (placed.box, placed.point) == (part, Point(0.5, 0.75))
    assert placed.quad == (Point(0.25, 0.5), Point(0.75, 1.0))
    assert placed.polygons == (placed.quad,)


# What is refused


def steps(*more: Json) -> Json:
    return asking("pipeline", pipeline=[DETECT, *more])


BAD = [
    Bad("no steps", asking("pipeline"), "invalid_value", "pipeline"),
    Bad("steps for another model", asking("auto", pipeline=[DETECT]), "invalid_value", "pipeline"),
    Bad("an empty list", asking("pipeline", pipeline=[]), "invalid_value", "pipeline"),
    Bad("four steps", steps(QUERY, QUERY, QUERY), "invalid_value", "pipeline"),
    Bad("a step without a model", asking("pipeline", pipeline=[{"task": "detect"}]), "missing_required_parameter",
        "pipeline[0].model"),
    Bad("a step without a task", asking("pipeline", pipeline=[{"model": "kosmos-2"}]), "missing_required_parameter",
        "pipeline[0].task"),
    Bad("an unknown key", asking("pipeline", pipeline=[{**DETECT, "when": 1}]), "unsupported_parameter",
        "pipeline[0].when"),
    Bad("for each of nothing", asking("pipeline", pipeline=[{**DETECT, "for_each": "objects"}]), "invalid_value",
        "pipeline[0].for_each"),
    Bad("a crop of everything", asking("pipeline", pipeline=[{**DETECT, "crop": 1.5}]), "invalid_value",
        "pipeline[0].crop"),
    Bad("a limit of everything", asking("pipeline", pipeline=[{**DETECT, "limit": 2}]), "invalid_value",
        "pipeline[0].limit"),
    Bad("a step for nothing", steps({**QUERY, "for_each": None}), "missing_required_parameter",
        "pipeline[1].for_each"),
    Bad("a step for each word", steps({**QUERY, "for_each": "words"}), "invalid_value", "pipeline[1].for_each"),
    Bad("too small a crop", steps({**QUERY, "crop": 0.5}), "invalid_value", "pipeline[1].crop"),
    Bad("too many objects", steps({**QUERY, "limit": 65}), "invalid_value", "pipeline[1].limit"),
    Bad("no objects", steps({**QUERY, "limit": 0}), "invalid_value", "pipeline[1].limit"),
    Bad("an unknown model", steps({**QUERY, "model": "nobody"}), "model_not_found", "pipeline[1].model", 404),
    Bad("a pipeline within", steps({**QUERY, "model": "pipeline"}), "invalid_value", "pipeline[1].model"),
    Bad("auto within", steps({**QUERY, "model": "auto"}), "invalid_value", "pipeline[1].model"),
    Bad("a task behind the name", steps({**QUERY, "model": "moondream-2:query"}), "invalid_value",
        "pipeline[1].model"),
    Bad("a task that the model lacks", steps({**QUERY, "model": "blip-large"}), "unsupported_task",
        "pipeline[1].task"),
    Bad("a task that is none", steps({**QUERY, "task": "dance"}), "unsupported_task", "pipeline[1].task"),
    Bad("the raw output", steps({**QUERY, "task": "raw"}), "invalid_value", "pipeline[1].task"),
    Bad("a region of its own", steps({**QUERY, "task": {"name": "query", "region": {"box": [0, 0, 1, 1]}}}),
        "invalid_value", "pipeline[1].task.region"),
    Bad("a crop of a region", steps({"for_each": "objects", "model": "florence-2-base", "task": "region_ocr",
                                     "crop": 1.2}), "invalid_value", "pipeline[1].crop"),
    Bad("words have no objects", asking("pipeline", pipeline=[{"model": "blip-large", "task": "caption"}, QUERY]),
        "invalid_value", "pipeline[0].task"),
    Bad("a task beside the steps", asking("pipeline", pipeline=[DETECT], task="detect"), "invalid_value", "task"),
    Bad("models beside the steps", asking("pipeline", pipeline=[DETECT], models=["kosmos-2"]), "invalid_value",
        "models"),
    Bad("several answers", asking("pipeline", pipeline=[DETECT], n=2), "invalid_value", "n"),
    Bad("log-probabilities", asking("pipeline", pipeline=[DETECT], logprobs=True), "invalid_value", "logprobs"),
    Bad("no image", {**asking("pipeline", pipeline=[DETECT]), "messages": [user(text_part("?"))]}, "invalid_value",
        "messages"),
    Bad("two images", {**asking("pipeline", pipeline=[DETECT]), "messages": [user(image_part(), image_part())]},
        "invalid_value", "messages"),
    Bad("a step that is too dear", {**steps({**QUERY, "model": "kosmos-2"}), "max_price": {"image": 0.0002}},
        "invalid_value", "max_price.image"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
async def test_the_impossible_is_refused_at_the_door(bad: Bad) -> None:
    models = Models()
    answer = await post(models, bad.request, CONFIG)
    check_error(answer, bad.status, bad.code, bad.param)
    assert models.asked == []


# The miniatures


async def test_the_miniatures_say_what_each_object_is() -> None:
    names = ("florence-2-base", "blip-large")
    config = EngineConfig(cache_bytes=64 * 1024**2)
    engines = {name: Engine(load(f"miniatures/{name}", dtype="float32", device="cpu"), config) for name in names}
    steps_ = [DETECT, {"for_each": "objects", "crop": 2, "model": "blip-large", "task": "caption"}]
    request = {**asking("pipeline", pipeline=steps_), "messages": [user(image_part(data_url(scene(2))))]}
    for engine in engines.values():
        engine.start()
    try:
        answer = await post(LocalBackend(engines), request)
    finally:
        for engine in engines.values():
            engine.stop()
    found = objects(answer)
    assert found
    for one in found:
        assert one["answers"][0]["text"].endswith(one["label"])
