"""An image is decoded once, however many ask about it at once, and what is kept stays within its budget."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.images import scene
from tests.vlm.engine.world import BLIP, FLORENCE, faulty_processor, miniature
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.engine.processor_cache import ImagePending, ProcessorCache
from vlm.errors import EngineFailure, InvalidImage
from vlm.models.processor import ProcessedImage
from vlm.types import Request, Sampling

SIZE = 3  # bytes of one image here


def made(image: bytes) -> ProcessedImage:
    return ProcessedImage(np.full(3, image[0], np.uint8), (1, 1))


class Counting:
    """Counts what it was asked to preprocess; ``before`` may wait or raise."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.seen: list[bytes] = []
        self._before = before

    def __call__(self, image: bytes) -> ProcessedImage:
        self.seen.append(image)
        self._before()
        return made(image)


def ask(cache: ProcessorCache, image: bytes, preprocess: Counting) -> int:
    try:
        made = cache.preprocess(image, image, preprocess)
    except ImagePending as pending:
        made = pending.image.result(10)
    return int(made.pixels[0])


def test_the_last_images_are_cached_within_the_budget() -> None:
    cache, preprocess = ProcessorCache(2 * SIZE), Counting()
    assert [ask(cache, image, preprocess) for image in (b"a", b"b", b"a", b"c", b"a", b"b")] == [97, 98, 97, 99, 97, 98]
    assert preprocess.seen == [b"a", b"b", b"c", b"b"]
    assert cache.used == 2 * SIZE


def test_requests_at_the_same_time_preprocess_an_image_once() -> None:
    go = threading.Event()

    def wait() -> None:
        go.wait(10)

    cache, preprocess = ProcessorCache(10 * SIZE), Counting(wait)
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(ask, cache, b"a", preprocess) for _ in range(4)]
        go.set()
        assert [answer.result(10) for answer in answers] == [97] * 4
    assert preprocess.seen == [b"a"]
    assert cache.used == SIZE


def test_without_a_budget_nothing_is_kept() -> None:
    cache, preprocess = ProcessorCache(0), Counting()
    assert [ask(cache, b"a", preprocess), ask(cache, b"a", preprocess)] == [97, 97]
    assert (preprocess.seen, cache.used) == ([b"a", b"a"], 0)


@pytest.mark.parametrize(
    ("error", "raised"), [(InvalidImage("no"), InvalidImage), (ZeroDivisionError(), EngineFailure)]
)
def test_a_failure_reaches_all_that_wait_and_is_not_cached(error: Exception, raised: type[Exception]) -> None:
    started, go = threading.Event(), threading.Event()

    def fail() -> None:
        started.set()
        go.wait(10)
        raise error

    cache, preprocess = ProcessorCache(10 * SIZE), Counting(fail)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, cache, b"a", preprocess)
        started.wait(10)
        second = threads.submit(ask, cache, b"a", preprocess)
        threading.Timer(0.05, go.set).start()
        with pytest.raises(type(error)):
            first.result(10)
        with pytest.raises((raised, type(error))):  # itself, if it came after the first had failed
            second.result(10)
    assert ask(cache, b"a", Counting()) == 97


@pytest.mark.parametrize("name", [BLIP, FLORENCE])
def test_questions_about_one_image_decode_it_once(name: str) -> None:
    preprocessed: list[object] = []
    loaded = faulty_processor(miniature(name), "preprocess", lambda *_: preprocessed.append(None))
    request = Request(scene(1), sampling=Sampling(max_tokens=2))

    async def all_at_once(engine: Engine) -> None:
        await asyncio.gather(*(engine.complete(request) for _ in range(8)))

    with Engine(loaded, EngineConfig(cache_bytes=64 * 1024**2)) as engine:
        asyncio.run(all_at_once(engine))
    assert len(preprocessed) == 1


def test_waiting_for_an_image_occupies_no_worker_thread() -> None:
    """All threads but one would be waiting, and a small image with them."""
    go = threading.Event()
    slow, quick = scene(1), scene(2)

    def before(image: bytes) -> None:
        if image == slow:
            go.wait(10)

    async def work(engine: Engine) -> None:
        how = Sampling(max_tokens=1)
        waiting = [asyncio.create_task(engine.complete(Request(slow, sampling=how))) for _ in range(6)]
        await asyncio.sleep(0)
        await asyncio.wait_for(engine.complete(Request(quick, sampling=how)), 10)
        waiting.pop().cancel()
        go.set()
        assert len(await asyncio.gather(*waiting)) == 5

    config = EngineConfig(cache_bytes=64 * 1024**2, prepare_threads=2)
    with Engine(faulty_processor(miniature(BLIP), "preprocess", before), config) as engine:
        asyncio.run(work(engine))
        assert engine.stats().accepted == 0


def test_a_bug_in_preparing_is_an_engine_failure() -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with Engine(
        faulty_processor(miniature(BLIP), "preprocess", fail), EngineConfig(cache_bytes=64 * 1024**2)
    ) as engine:
        with pytest.raises(EngineFailure, match="prepared"):
            asyncio.run(engine.complete(Request(scene(1))))
        assert engine.stats().accepted == 0
