"""An engine whose images are decoded in processes: the same answers, and nothing left of a request that has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.images import plain, scene
from tests.vlm.decoding.readers import Acting
from tests.vlm.engine.world import BLIP, FLORENCE, Faulty, assert_empty, comparable, crowd, eventually, miniature
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, UnsupportedTask
from vlm.types import Request, Task

CONFIG = EngineConfig(cache_bytes=64 * 1024**2, decode_processes=1)


class Hanging:
    """Before a processor: every image takes for ever."""

    preprocess = Acting("hang")

    def __init__(self, behind: object) -> None:
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


@pytest.fixture(scope="module")
def hanging() -> Iterator[Engine]:
    """An engine that decodes no image, and that every test leaves empty."""
    processor: Any = Hanging(miniature(FLORENCE).processor)
    with Engine(replace(miniature(FLORENCE), processor=processor), CONFIG) as engine:
        yield engine


def test_answers_are_those_with_threads() -> None:
    requests = crowd(BLIP, 8, seed=3)
    with (
        Engine(miniature(BLIP), CONFIG) as processes,
        Engine(miniature(BLIP), EngineConfig(cache_bytes=2**26)) as threads,
    ):
        there, here = (list(map(comparable, engine.answer_all(requests))) for engine in (processes, threads))
        assert there == here
        with pytest.raises(InvalidImage, match="cut short"):
            processes.answer(Request(plain()[:-600]))
        assert_empty(processes)
        assert processes.healthy


def test_a_wrong_request_is_refused_before_its_image_is_decoded(hanging: Engine) -> None:
    with pytest.raises(UnsupportedTask):
        hanging.answer(Request(scene(1), task=Task("no_such_task")))
    with pytest.raises(InvalidRequest, match="tokens"):
        hanging.answer(Request(scene(1), "<CAPTION_TO_PHRASE_GROUNDING> " + "word " * 2000))
    with pytest.raises(InvalidImage, match="not an image"):
        hanging.answer(Request(b"no image", "<CAPTION>"))


def test_a_client_that_leaves_takes_the_decoding_of_its_image_along(hanging: Engine) -> None:
    async def work() -> None:
        shared = [asyncio.create_task(hanging.complete(Request(scene(1), "<CAPTION>"))) for _ in range(2)]
        await eventually(lambda: [job.result.done() for job in running()] == [False])
        await eventually(lambda: next(iter(hanging._images._pending.values())).waiting == 2)
        [job] = running()
        for leaves, given_up in zip(shared, (False, True), strict=True):
            leaves.cancel()
            await asyncio.wait([leaves])
            assert job.result.cancelled() == given_up
        await eventually(lambda: not running())

    def running() -> list[Any]:
        return list(decoder._running)

    decoder: Any = hanging._decoder
    asyncio.run(work())
    assert_empty(hanging)


def test_stopping_ends_requests_whose_image_is_being_decoded() -> None:
    processor: Any = Hanging(miniature(FLORENCE).processor)
    engine = Engine(replace(miniature(FLORENCE), processor=processor), CONFIG).start()

    async def work() -> None:
        waiting = asyncio.create_task(engine.complete(Request(scene(1), "<CAPTION>")))
        decoder: Any = engine._decoder
        await eventually(lambda: decoder._running)
        await asyncio.to_thread(engine.stop)
        with pytest.raises(EngineFailure, match="stopping"):
            await waiting

    asyncio.run(work())
    assert_empty(engine)


def test_an_engine_that_can_decode_no_image_is_unhealthy() -> None:
    with Engine(miniature(BLIP), replace(CONFIG, decode_processes=0)) as engine:
        assert engine.healthy
        stand_in: Any = Faulty(engine._decoder, "", lambda: None)
        stand_in.healthy = False
        engine._decoder = stand_in
        assert not engine.healthy
