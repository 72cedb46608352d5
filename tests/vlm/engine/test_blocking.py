"""Blocking calls: from any thread, in order, and never more at once than the engine has capacity for."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from tests.images import scene
from tests.vlm.engine.world import BLIP, FLORENCE, assert_empty, comparable, crowd, miniature
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest
from vlm.types import Completion, Request, Sampling, Task

CAPACITY = 3
TINY = EngineConfig(max_batch=2, max_waiting=1, caller_share=100, cache_bytes=64 * 1024**2)
REQUEST = Request(scene(1), sampling=Sampling(max_tokens=4))
BAD = Request(b"no image")
ENDLESS = Request(scene(1), sampling=Sampling(max_tokens=60, forced_tokens=(9,) * 60))


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One for all tests, each of which leaves it empty."""
    with Engine(miniature(BLIP), TINY) as one:
        yield one
        assert_empty(one)


def test_an_answer_is_that_of_the_asynchronous_call(engine: Engine) -> None:
    for request in crowd(BLIP, 5, seed=2):
        assert comparable(engine.answer(request)) == comparable(asyncio.run(engine.complete(request)))
    assert engine.stats().accepted == 0


def test_it_can_be_called_where_an_event_loop_runs(engine: Engine) -> None:
    async def notebook() -> Completion:
        return engine.answer(REQUEST)

    assert comparable(asyncio.run(notebook())) == comparable(engine.answer(REQUEST))


def test_many_more_requests_than_the_capacity_are_answered_in_order(engine: Engine) -> None:
    requests = crowd(BLIP, 20, seed=9)
    answers = engine.answer_all(requests)
    assert [comparable(one) for one in answers] == [comparable(engine.answer(request)) for request in requests]
    assert engine.answer_all([]) == []


def test_requests_are_read_only_as_they_are_needed(engine: Engine) -> None:
    read: list[int] = []

    def lazily() -> Iterator[Request]:
        for number in range(15):
            assert engine.stats().accepted <= CAPACITY
            read.append(number)
            yield REQUEST

    assert len(engine.answer_all(lazily())) == len(read) == 15


def test_the_first_error_is_raised_once_all_have_ended(engine: Engine) -> None:
    read: list[Request] = []

    def endlessly() -> Iterator[Request]:
        yield ENDLESS
        yield BAD
        while True:
            read.append(ENDLESS)
            yield ENDLESS

    with pytest.raises(InvalidImage):
        engine.answer_all(endlessly())
    assert engine.stats().accepted == 0
    assert len(read) < 10, "no further request is begun"
    assert_empty(engine)


def test_errors_can_be_returned_in_the_place_of_answers(engine: Engine) -> None:
    first, bad, last = engine.answer_all([REQUEST, BAD, REQUEST], return_exceptions=True)
    assert isinstance(bad, InvalidImage)
    assert isinstance(first, Completion)
    assert isinstance(last, Completion)
    assert comparable(first) == comparable(last)
    with pytest.raises(InvalidImage):
        engine.answer(BAD)


def test_an_error_of_the_caller_s_own_iterator_ends_what_was_begun(engine: Engine) -> None:
    def broken() -> Iterator[Request]:
        yield ENDLESS
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        engine.answer_all(broken())
    assert_empty(engine)


def test_callers_in_several_threads_share_the_capacity(engine: Engine) -> None:
    answers: list[list[Completion]] = []
    requests = crowd(BLIP, 8, seed=5)
    threads = [threading.Thread(target=lambda: answers.append(engine.answer_all(requests))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3, "none was refused"
    assert len({tuple(comparable(one)[0] for one in found) for found in answers}) == 1


def test_several_tasks_count_as_several_requests() -> None:
    two = Request(scene(2), tasks=(Task("caption"), Task("detect")), sampling=Sampling(max_tokens=5))
    with Engine(miniature(FLORENCE), TINY) as engine:
        assert [len(one.parts) for one in engine.answer_all([two] * 6)] == [2] * 6
        too_many = Request(scene(2), tasks=(Task("caption"),) * (CAPACITY + 1))
        with pytest.raises(InvalidRequest, match=f"at most {CAPACITY} "):
            engine.answer(too_many)
        assert_empty(engine)


def test_an_engine_that_stops_ends_those_that_wait_for_it() -> None:
    engine = Engine(miniature(BLIP), TINY).start()
    engine.answer(REQUEST)
    waiting = threading.Timer(0.05, engine.stop)
    waiting.start()
    with pytest.raises(EngineFailure, match="stopping"):
        engine.answer_all(ENDLESS for _ in range(10_000))
    waiting.join()
    assert_empty(engine)


def test_an_engine_is_freed_with_its_last_reference() -> None:
    """Its KV cache is large, so it must not wait for the garbage collector."""
    engine = Engine(miniature(BLIP), TINY).start()
    engine.answer(REQUEST)
    engine.stop()
    freed, cache = weakref.ref(engine), weakref.ref(engine._core._runner._cache)
    gc.disable()
    try:
        del engine
        assert (freed(), cache()) == (None, None)
    finally:
        gc.enable()
