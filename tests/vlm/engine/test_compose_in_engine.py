"""Several tasks and labels in a real engine: the answers of single requests, one encode, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.images import scene
from tests.oracle import without_scores
from tests.vlm.engine.world import (
    BLIP,
    FLORENCE,
    KOSMOS,
    Gate,
    assert_empty,
    comparable,
    eventually,
    faulty_model,
    faulty_processor,
    miniature,
)
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import EngineFailure, InvalidRequest, Overloaded, UnsupportedTask, VlmError
from vlm.types import Chunk, Completion, Grounding, Request, Sampling, Task

SMALL = EngineConfig(cache_bytes=64 * 1024**2)
THREE = EngineConfig(max_batch=2, max_waiting=1, caller_share=100, cache_bytes=64 * 1024**2)
BRIEF = Sampling(max_tokens=30)
TASKS = (
    Task("caption", length="short"),
    Task("detect"),
    Task("detect", labels=("circle", "blue square")),
    Task("ground", text="a red circle left of a blue square"),
    Task("ocr_regions"),
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(miniature(FLORENCE), SMALL) as one:
        yield one
        assert_empty(one)


def complete(engine: Engine, request: Request) -> Completion:
    return asyncio.run(engine.complete(request))


@pytest.mark.parametrize("how", [BRIEF, Sampling(max_tokens=30, temperature=1.1, seed=4)])
def test_each_part_is_what_a_request_of_its_own_gets(engine: Engine, how: Sampling) -> None:
    whole = complete(engine, Request(scene(3), tasks=TASKS, sampling=how))
    alone = [complete(engine, Request(scene(3), task=task, sampling=how)) for task in TASKS]
    assert list(map(comparable, whole.parts)) == list(map(comparable, alone))
    assert (whole.text, whole.grounding) == (alone[0].text, whole.parts[0].grounding)
    assert whole.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone)
    assert whole.usage.image_tokens == alone[0].usage.image_tokens


def assert_joined(whole: Grounding, singles: list[Grounding]) -> None:
    assert whole.raw == "\n".join(one.raw for one in singles)
    shapes = [replace(found, spans=()) for one in singles for found in without_scores(one).detections]
    assert [replace(found, spans=()) for found in without_scores(whole).detections] == shapes
    assert whole.truncated == any(one.truncated for one in singles)


@pytest.mark.parametrize(("name", "task"), [(FLORENCE, "detect"), (FLORENCE, "point"), (KOSMOS, "detect")])
def test_several_labels_are_the_single_ones_one_by_one(name: str, task: str) -> None:
    labels = ("a red circle", "a blue square", "a dog")
    with Engine(miniature(name), SMALL) as engine:
        whole = complete(engine, Request(scene(2), task=Task(task, labels=labels), sampling=BRIEF))
        singles = [
            complete(engine, Request(scene(2), task=Task(task, labels=(label,)), sampling=BRIEF)) for label in labels
        ]
        assert engine.stats().images_encoded == 1
        assert_empty(engine)
    assert_joined(whole.grounding, [one.grounding for one in singles])
    assert (whole.grounding.task, whole.parts, whole.has_text) == (task, (), False)
    assert any(one.grounding.detections for one in singles)


def test_parts_that_arrive_in_one_step_encode_their_image_once() -> None:
    """Without the image cache, so that only the step itself can tell; the engine starts when all of them wait."""
    engine = Engine(miniature(FLORENCE), replace(SMALL, encoder_cache_bytes=0))

    async def all_at_once() -> Completion:
        task = asyncio.create_task(engine.complete(Request(scene(1), tasks=TASKS, sampling=BRIEF)))
        await eventually(lambda: engine._inbox.qsize() == 6)
        engine.start()
        return await task

    whole = asyncio.run(all_at_once())
    assert engine.stats().images_encoded == 1
    assert (whole.usage.cached_tokens, len(whole.parts)) == (0, 5)
    engine.stop()


def test_the_whole_comes_as_one_chunk_whatever_was_asked(engine: Engine) -> None:
    async def streamed() -> list[Chunk]:
        return [chunk async for chunk in engine.generate(Request(scene(1), tasks=TASKS, stream=True))]

    [chunk] = asyncio.run(streamed())
    assert chunk.completion is not None
    assert chunk.text == chunk.completion.text != ""


async def failure(engine: Engine, request: Request) -> VlmError:
    with pytest.raises(VlmError) as caught:
        await engine.complete(request)
    assert engine.stats().accepted == 0  # here already: the others have been freed before the error comes
    return caught.value


@pytest.mark.parametrize(
    ("task", "kind", "param"),
    [
        (Task("segment"), InvalidRequest, "tasks[2].text"),
        (Task("query"), UnsupportedTask, "tasks[2]"),
        (Task("region_ocr"), InvalidRequest, "tasks[2].region"),
    ],
)
def test_one_bad_part_fails_the_whole_and_frees_the_others(
    engine: Engine, task: Task, kind: type[VlmError], param: str
) -> None:
    endless = Sampling(max_tokens=60, forced_tokens=(9,) * 60)
    parts = (TASKS[0], TASKS[2], task)
    error = asyncio.run(failure(engine, Request(scene(1), tasks=parts, sampling=endless)))
    assert (type(error), error.param) == (kind, param)
    assert_empty(engine)


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.02, 0.05])
def test_a_client_that_leaves_frees_every_part(engine: Engine, delay: float) -> None:
    async def leaves() -> None:
        task = asyncio.create_task(engine.complete(Request(scene(5), tasks=TASKS)))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        assert_empty(engine)  # here, since a loop that closes would abandon all of its requests

    asyncio.run(leaves())


def test_a_request_gets_the_places_of_all_its_parts_or_none() -> None:
    """Three places: two requests of two parts do not fit, and the second is refused before anything of it is done."""
    parts = (Task("caption"),) * 2
    forwards = Gate(1)
    prepared: list[Request] = []

    async def crowded(engine: Engine) -> None:
        first = asyncio.create_task(engine.complete(Request(scene(1), tasks=parts)))
        await eventually(lambda: engine.stats().accepted)
        assert (engine.stats().accepted, engine.stats().used_places, engine.stats().total_places) == (1, 2, 3)
        with pytest.raises(Overloaded, match="takes 2 places, and 1 of the model's 3 are free"):
            await engine.complete(Request(scene(2), tasks=parts, caller="another"))
        forwards.open()
        assert len((await first).parts) == 2
        assert {request.image for request in prepared} == {scene(1)}
        assert (engine.stats().accepted, engine.stats().used_places) == (0, 0)

    def note(request: Request, *_: object) -> None:
        prepared.append(request)

    with Engine(faulty_processor(faulty_model(miniature(BLIP), "forward", forwards), "prepare", note), THREE) as engine:
        asyncio.run(crowded(engine))
        assert_empty(engine)


def test_more_parts_than_one_caller_may_ever_hold_are_refused_for_good() -> None:
    with Engine(miniature(BLIP), THREE) as engine:
        with pytest.raises(InvalidRequest, match=r"takes 4 places.*at most 3") as caught:
            complete(engine, Request(scene(1), tasks=(Task("caption"),) * 4))
        assert caught.value.param == "tasks"
        assert complete(engine, Request(scene(1), tasks=(Task("caption"),) * 3)).text
        assert_empty(engine)


def test_a_part_that_is_answered_gives_its_place_back_before_the_others_end() -> None:
    """The long one goes on when the short one has ended."""
    forwards = Gate(20)
    long = Sampling(max_tokens=40, num_beams=1)
    parts = (Task("caption", length="short"), Task("caption", length="long"))

    async def asks(engine: Engine) -> None:
        whole = asyncio.create_task(engine.complete(Request(scene(1), tasks=parts, sampling=long)))
        await eventually(lambda: engine.stats().used_places == 2)
        await eventually(lambda: engine.stats().used_places == 1)
        forwards.open()
        assert len((await whole).parts) == 2

    with Engine(faulty_model(miniature(FLORENCE), "forward", forwards), SMALL) as engine:
        asyncio.run(asks(engine))
        assert_empty(engine)


def test_an_engine_that_stops_frees_the_places_of_every_part() -> None:
    endless = Request(scene(1), tasks=TASKS, sampling=Sampling(max_tokens=60, forced_tokens=(9,) * 60, num_beams=1))

    async def stopped(engine: Engine) -> None:
        task = asyncio.ensure_future(engine.complete(endless))
        await eventually(lambda: engine.stats().running == engine.stats().used_places == 6)
        stopping = asyncio.ensure_future(asyncio.to_thread(engine.stop))
        await eventually(lambda: engine._stopping)
        forwards.open()
        await stopping
        with pytest.raises(EngineFailure):
            await task
        assert (engine.stats().accepted, engine.stats().used_places) == (0, 0)

    forwards = Gate(3)  # so that no part has ended before
    with Engine(faulty_model(miniature(FLORENCE), "forward", forwards), SMALL) as engine:
        asyncio.run(stopped(engine))
