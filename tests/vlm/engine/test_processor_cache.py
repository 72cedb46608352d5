"""An image is decoded once, however many ask about it at once, and what is kept stays within its budget."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from tests.images import scene
from tests.vlm.engine.world import BLIP, FLORENCE, faulty_processor, miniature
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.engine.processor_cache import ProcessorCache
from vlm.errors import EngineFailure, InvalidImage
from vlm.models.processor import ProcessedImage
from vlm.types import Request, Sampling

SIZE = 3  # bytes of one image here


def made(image: bytes) -> ProcessedImage:
    return ProcessedImage(np.full(3, image[0], np.uint8), (1, 1))


class Decoder:
    """Counts what it was asked to decode; each image is decoded when ``finish`` is called, or at once."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.asked: list[bytes] = []
        self.results: list[Future[ProcessedImage]] = []
        self._at_once = at_once

    def submit(self, image: bytes) -> Future[ProcessedImage]:
        self.asked.append(image)
        self.results.append(Future())
        if self._at_once:
            self.finish(image)
        return self.results[-1]

    def finish(self, image: bytes) -> None:
        self.results[-1].set_result(made(image))


async def ask(cache: ProcessorCache, image: bytes, decoder: Decoder) -> float:
    return float((await cache.get(image, lambda: decoder.submit(image))).pixels[0])


def start(cache: ProcessorCache, decoder: Decoder, count: int) -> list[asyncio.Task[float]]:
    return [asyncio.create_task(ask(cache, b"a", decoder)) for _ in range(count)]


def test_the_last_images_are_cached_within_the_budget() -> None:
    cache, decoder = ProcessorCache(2 * SIZE), Decoder(at_once=True)

    async def one_by_one(*images: bytes) -> list[float]:
        return [await ask(cache, image, decoder) for image in images]

    assert asyncio.run(one_by_one(b"a", b"b", b"a", b"c", b"a", b"b")) == [97, 98, 97, 99, 97, 98]
    assert decoder.asked == [b"a", b"b", b"c", b"b"]
    assert cache.used == 2 * SIZE
    assert cache.find(b"c") is None
    assert cache.find(b"b") is not None


def test_an_image_that_is_finished_while_another_request_looks_for_it_is_decoded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, decoder = ProcessorCache(10 * SIZE), Decoder()
    finishing = threading.Thread(target=decoder.finish, args=(b"a",))

    def find(key: bytes) -> ProcessedImage | None:
        found = ProcessorCache.find(cache, key)
        if decoder.asked:  # the second request
            finishing.start()
            finishing.join(0.1)  # as far as it gets, which is to wait for the lock
        return found

    async def work() -> list[float]:
        monkeypatch.setattr(cache, "find", find)
        async with asyncio.timeout(10):
            return await asyncio.gather(*start(cache, decoder, 2))

    assert asyncio.run(work()) == [97, 97]
    finishing.join()
    assert decoder.asked == [b"a"]
    assert cache.used == SIZE


def test_requests_at_the_same_time_decode_an_image_once() -> None:
    cache, decoder = ProcessorCache(10 * SIZE), Decoder()

    async def work() -> list[float]:
        waiting = start(cache, decoder, 4)
        await asyncio.sleep(0)
        decoder.finish(b"a")
        return await asyncio.gather(*waiting)

    assert asyncio.run(work()) == [97] * 4
    assert decoder.asked == [b"a"]
    assert cache.used == SIZE


def test_clients_of_two_event_loops_share_an_image() -> None:
    cache, decoder = ProcessorCache(0), Decoder()
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(asyncio.run, ask(cache, b"a", decoder)) for _ in range(2)]
        while not (cache._pending and cache._pending[b"a"].waiting == 2):
            threading.Event().wait(0.001)
        decoder.finish(b"a")
        assert [answer.result(10) for answer in answers] == [97, 97]
    assert decoder.asked == [b"a"]


def test_without_a_budget_nothing_is_kept() -> None:
    cache, decoder = ProcessorCache(0), Decoder(at_once=True)
    assert [asyncio.run(ask(cache, b"a", decoder)) for _ in range(2)] == [97, 97]
    assert (decoder.asked, cache.used) == ([b"a", b"a"], 0)


def test_an_image_is_given_up_when_the_last_request_for_it_leaves() -> None:
    cache, decoder = ProcessorCache(SIZE), Decoder()

    async def work() -> None:
        first, second = start(cache, decoder, 2)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert not decoder.results[0].cancelled()
        second.cancel()
        await asyncio.wait([second])
        assert decoder.results[0].cancelled()
        [third] = start(cache, decoder, 1)
        await asyncio.sleep(0)
        decoder.finish(b"a")
        assert await third == 97

    asyncio.run(work())
    assert len(decoder.asked) == 2
    assert not cache._pending


def test_an_image_that_cannot_be_given_up_is_kept_for_the_next_request() -> None:
    cache, decoder = ProcessorCache(SIZE), Decoder()

    async def work() -> float:
        [left] = start(cache, decoder, 1)
        await asyncio.sleep(0)
        decoder.results[0].set_running_or_notify_cancel()
        left.cancel()
        await asyncio.wait([left])
        [next_one] = start(cache, decoder, 1)
        await asyncio.sleep(0)
        decoder.finish(b"a")
        return await next_one

    assert asyncio.run(work()) == 97
    assert len(decoder.asked) == 1


def test_a_failure_reaches_all_that_wait_and_is_not_cached() -> None:
    cache, decoder = ProcessorCache(10 * SIZE), Decoder()

    async def work() -> None:
        waiting = start(cache, decoder, 3)
        await asyncio.sleep(0)
        decoder.results[0].set_exception(InvalidImage("no"))
        assert [type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)] == [InvalidImage] * 3
        assert await ask(cache, b"a", Decoder(at_once=True)) == 97

    asyncio.run(work())


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
        with pytest.raises(EngineFailure, match="The image could not be prepared"):
            asyncio.run(engine.complete(Request(scene(1))))
        assert engine.stats().accepted == 0
