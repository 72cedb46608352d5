"""Many clients and one device thread, on the real miniatures: requests that are answered, left, refused or failed."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from tests.images import scene
from tests.vlm.engine.world import (
    BLIP,
    FLORENCE,
    KOSMOS,
    NAMES,
    Gate,
    assert_empty,
    comparable,
    crowd,
    eventually,
    faulty_model,
    faulty_processor,
    least_bytes,
    miniature,
)
from vlm.engine import prepare
from vlm.engine.blocks import blocks_for
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.engine.sequence import Sequence
from vlm.errors import (
    ConfigError,
    EngineClosed,
    EngineFailure,
    EngineLost,
    InvalidImage,
    InvalidRequest,
    Overloaded,
    UnsupportedTask,
    VlmError,
)
from vlm.types import Chunk, Completion, Priority, Request, Sampling, Task

PRIORITIES: tuple[Priority, ...] = ("interactive", "batch")
SMALL = EngineConfig(cache_bytes=64 * 1024**2)
REQUEST = Request(scene(1))
ENDLESS = Request(scene(1), sampling=Sampling(max_tokens=60, forced_tokens=(9,) * 60))


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Engine]]:
    """One engine a miniature, which every test leaves empty."""
    made = {name: Engine(miniature(name), SMALL).start() for name in (*NAMES, KOSMOS)}
    yield made
    for engine in made.values():
        assert_empty(engine)
        engine.stop()


def generate(engine: Engine, request: Request) -> AsyncGenerator[Chunk, None]:
    return engine.generate(request)


async def gathered(engine: Engine, requests: list[Request]) -> list[Completion]:
    return await asyncio.gather(*map(engine.complete, requests))


async def outcome(engine: Engine, request: Request) -> Completion | VlmError:
    try:
        return await engine.complete(request)
    except VlmError as error:
        return error


@pytest.mark.parametrize("name", NAMES)
def test_one_by_one_and_all_at_once_give_the_same_answers(engines: dict[str, Engine], name: str) -> None:
    requests = crowd(name, 64)

    async def one_by_one() -> list[Completion]:
        return [await engines[name].complete(request) for request in requests]

    alone, together = asyncio.run(one_by_one()), asyncio.run(gathered(engines[name], requests))
    assert list(map(comparable, together)) == list(map(comparable, alone))
    for here, there in zip(together, alone, strict=True):
        assert here.logprobs == pytest.approx(there.logprobs, abs=1e-4)
    assert len({completion.text for completion in alone}) > 10
    assert_empty(engines[name])


@pytest.mark.parametrize("name", NAMES)
def test_who_asks_changes_when_a_request_is_answered_but_not_how(engines: dict[str, Engine], name: str) -> None:
    rng, requests = random.Random(3), crowd(name, 32, seed=3)
    mixed = [replace(one, caller=rng.choice("abc"), priority=rng.choice(PRIORITIES)) for one in requests]
    alike, apart = (asyncio.run(gathered(engines[name], asked)) for asked in (requests, mixed))
    assert list(map(comparable, apart)) == list(map(comparable, alike))


@pytest.mark.parametrize("name", NAMES)
def test_slots_that_are_kept_free_change_no_answer(engines: dict[str, Engine], name: str) -> None:
    requests = crowd(name, 24, seed=4)
    mixed = [
        replace(one, caller="ab"[index % 5 == 0], priority=PRIORITIES[index % 2]) for index, one in enumerate(requests)
    ]
    with Engine(miniature(name), replace(SMALL, max_batch=6, slot_reserve=50)) as reserving:
        answers = asyncio.run(gathered(reserving, mixed))
    assert list(map(comparable, answers)) == list(map(comparable, asyncio.run(gathered(engines[name], requests))))


def test_three_models_at_once_greedy_and_with_beams_give_what_they_give_alone(engines: dict[str, Engine]) -> None:
    """Three engines in one process, each with greedy, sampled and beam-searched answers in the same batches."""
    asked = [(name, request) for name in engines for request in crowd(name, 16, seed=21)]
    assert {request.sampling.num_beams for _, request in asked} == {1, 2, 3}

    async def alone() -> list[Completion]:
        return [await engines[name].complete(request) for name, request in asked]

    async def together() -> list[Completion]:
        return await asyncio.gather(*(engines[name].complete(request) for name, request in asked))

    assert list(map(comparable, asyncio.run(together()))) == list(map(comparable, asyncio.run(alone())))


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_cache_gives_the_answers_of_a_big_one(engines: dict[str, Engine], name: str) -> None:
    """Hardly more than one sequence of full length fits, and three such come along."""
    loaded, requests = miniature(name), crowd(name, 24, seed=8)
    longest = loaded.model.cache.max_positions
    requests[3:3] = [
        Request(scene(2), sampling=Sampling(max_tokens=longest, forced_tokens=(9,) * longest, num_beams=1))
    ] * 3
    full = blocks_for(longest)
    config = EngineConfig(cache_bytes=least_bytes(loaded, 3, full), max_batch=3)
    mixed = [replace(one, priority=PRIORITIES[index % 2]) for index, one in enumerate(requests)]
    with Engine(loaded, config) as tiny:
        scarce = asyncio.run(gathered(tiny, mixed))
        assert_empty(tiny)
    assert list(map(comparable, scarce)) == list(map(comparable, asyncio.run(gathered(engines[name], requests))))


@pytest.mark.parametrize("name", NAMES)
def test_streamed_text_joined_is_the_whole_text(engines: dict[str, Engine], name: str) -> None:
    async def streamed(request: Request) -> list[Chunk]:
        return [chunk async for chunk in engines[name].generate(request)]

    async def all_streamed() -> list[list[Chunk]]:
        return await asyncio.gather(*map(streamed, crowd(name, 16, seed=2)))

    for chunks in asyncio.run(all_streamed()):
        completion = chunks[-1].completion
        assert completion is not None
        assert not any(chunk.completion for chunk in chunks[:-1])
        assert "".join(chunk.text for chunk in chunks) == completion.text
        assert sum((chunk.token_ids for chunk in chunks), ()) == completion.token_ids
        assert sum((chunk.logprobs for chunk in chunks), ()) == completion.logprobs


@pytest.mark.parametrize("name", NAMES)
def test_without_streaming_the_answer_is_one_chunk(engines: dict[str, Engine], name: str) -> None:
    async def whole(request: Request) -> list[Chunk]:
        return [chunk async for chunk in engines[name].generate(replace(request, stream=False))]

    async def both() -> list[tuple[list[Chunk], Completion]]:
        asked = crowd(name, 16, seed=3)
        return list(zip(await asyncio.gather(*map(whole, asked)), await gathered(engines[name], asked), strict=True))

    for chunks, completion in asyncio.run(both()):
        [chunk] = chunks
        assert chunk.completion is not None
        assert comparable(chunk.completion) == comparable(completion)
        assert (chunk.text, chunk.token_ids) == (completion.text, completion.token_ids)


@pytest.mark.parametrize("name", NAMES)
def test_questions_about_one_image_cost_one_encode_and_get_the_same_answers(name: str) -> None:
    asked = [replace(request, image=scene(4)) for request in crowd(name, 12, seed=4)]
    with Engine(miniature(name), replace(SMALL, encoder_cache_bytes=0)) as engine:
        without = asyncio.run(gathered(engine, asked))
    with Engine(miniature(name), SMALL) as engine:
        first = asyncio.run(gathered(engine, asked))
        again = asyncio.run(gathered(engine, asked))
        assert (engine.stats().images_encoded, engine.stats().image_hits) == (1, 23)
    assert [comparable(answer)[:4] for answer in first] == [comparable(answer)[:4] for answer in again]
    assert [answer.token_ids for answer in without] == [answer.token_ids for answer in again]
    assert {answer.usage.cached_tokens for answer in again} == {again[0].usage.image_tokens}
    assert [answer.usage.cached_tokens for answer in first].count(0) == 1


def live_sequences() -> int:
    gc.collect()
    return sum(type(one) is Sequence for one in gc.get_objects())


async def leave_at_some_moment(engine: Engine, request: Request, rng: random.Random) -> None:
    """Before the first chunk, while the image is prepared, between two chunks, in the middle of one, or never."""
    match rng.randrange(4):
        case 0:
            await generate(engine, request).aclose()
        case 1:
            chunks = generate(engine, request)
            async for _ in chunks:
                if rng.random() < 0.3:
                    break
            await chunks.aclose()
        case _:
            task = asyncio.ensure_future(engine.complete(request))
            await asyncio.sleep(rng.choice([0, 0, 0.001, 0.01, 0.05]))
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.parametrize("name", NAMES)
def test_clients_that_leave_at_random_moments_leave_nothing_behind(engines: dict[str, Engine], name: str) -> None:
    before, rng = live_sequences(), random.Random(7)
    requests = [*crowd(name, 75, seed=4), *[ENDLESS] * 25]

    async def crowd_leaves() -> None:
        await asyncio.gather(*(leave_at_some_moment(engines[name], request, rng) for request in requests))
        assert_empty(engines[name])  # here, since a loop that closes would abandon all of its requests

    asyncio.run(crowd_leaves())
    patience = time.monotonic() + 10  # threads may still prepare an image whose client has left
    while live_sequences() > before and time.monotonic() < patience:
        time.sleep(0.01)
    assert live_sequences() <= before
    assert asyncio.run(engines[name].complete(REQUEST)).text


def test_work_for_a_client_that_leaves_stops_at_once() -> None:
    """The step that is being computed is the last one: the answer has 60 tokens."""
    forwards = Gate(20)

    async def leaves(engine: Engine) -> None:
        chunks = generate(engine, ENDLESS)
        await chunks.__anext__()
        await chunks.aclose()
        forwards.open()
        assert_empty(engine)  # here, since a loop that closes would abandon it

    with Engine(faulty_model(miniature(BLIP), "forward", forwards), SMALL) as engine:
        asyncio.run(leaves(engine))
    assert forwards.calls <= 20


def test_a_client_that_leaves_while_its_image_is_prepared_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "QUICK_BYTES", 0)  # so that a thread prepares it
    started, finish = threading.Event(), threading.Event()

    def slowly(request: Request, *_: object) -> None:
        started.set()
        finish.wait(10)

    async def leaves(engine: Engine) -> None:
        task = asyncio.ensure_future(engine.complete(REQUEST))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        await asyncio.wait([task])
        assert engine.stats().accepted == 0
        finish.set()

    with Engine(faulty_processor(miniature(BLIP), "prepare", slowly), SMALL) as engine:
        asyncio.run(leaves(engine))
        assert_empty(engine)


def test_requests_beyond_the_capacity_are_refused_until_others_end() -> None:
    config = EngineConfig(max_batch=2, max_waiting=1, caller_share=100, cache_bytes=SMALL.cache_bytes)

    async def five(engine: Engine) -> list[Completion | VlmError]:
        return await asyncio.gather(*(outcome(engine, REQUEST) for _ in range(5)))

    with Engine(miniature(BLIP), config) as engine:
        for _ in range(2):
            answers = asyncio.run(five(engine))
            assert [type(answer) for answer in answers] == [Completion] * 3 + [Overloaded] * 2
        assert_empty(engine)


def test_one_caller_leaves_a_place_to_another_and_beams_count_what_they_take() -> None:
    """Ten slots have a row each, and a search with four beams takes four of the ten places."""
    config = EngineConfig(max_batch=10, max_waiting=0, cache_bytes=SMALL.cache_bytes)
    search = replace(ENDLESS, sampling=replace(ENDLESS.sampling, num_beams=4))
    forwards = Gate(1)

    async def two_callers(engine: Engine) -> list[Completion]:
        greedy = asyncio.create_task(engine.complete(ENDLESS))
        searches = [asyncio.create_task(engine.complete(search)) for _ in range(2)]
        await eventually(lambda: engine.stats().used_places == 9)
        with pytest.raises(Overloaded, match="takes 1 place, and you hold 9 of the 9"):
            await engine.complete(REQUEST)
        newcomer = asyncio.create_task(engine.complete(replace(REQUEST, caller="newcomer")))
        await eventually(lambda: engine.stats().used_places == 10)
        with pytest.raises(Overloaded, match="takes 1 place, and 0 of the model's 10 are free"):
            await engine.complete(replace(REQUEST, caller="another"))
        forwards.open()
        return await asyncio.gather(greedy, *searches, newcomer)

    with Engine(faulty_model(miniature(BLIP), "forward", forwards), config) as engine:
        assert len(asyncio.run(two_callers(engine))) == 4
        assert_empty(engine)


def test_a_search_with_most_beams_fits_into_the_smallest_engine() -> None:
    config = EngineConfig(max_batch=1, max_waiting=0, cache_bytes=SMALL.cache_bytes)
    with Engine(miniature(BLIP), config) as engine:
        assert engine.answer(Request(scene(1), sampling=Sampling(max_tokens=5, num_beams=8))).text


def test_capacity_is_free_as_soon_as_the_answer_is_returned() -> None:
    """Not one turn of the event loop later: the next request would be refused."""

    async def twice(engine: Engine) -> None:
        for _ in range(3):
            await engine.complete(REQUEST)
            assert engine.stats().accepted == 0

    with Engine(miniature(BLIP), EngineConfig(max_batch=1, max_waiting=0, cache_bytes=SMALL.cache_bytes)) as engine:
        asyncio.run(twice(engine))


@pytest.mark.parametrize(
    ("request_", "kind", "param"),
    [
        (Request(b"no image"), InvalidImage, "image"),
        (Request(scene(1), "<UNHEARD_OF>"), UnsupportedTask, "prompt"),
        (Request(None), InvalidRequest, "image"),
        (Request(scene(1), sampling=Sampling(forced_tokens=(1, 1600))), InvalidRequest, "forced_tokens"),
        (Request(scene(1), sampling=Sampling(forced_last_token=-1)), InvalidRequest, "forced_last_token"),
        (Request(scene(1), sampling=Sampling(logit_bias=((3, 1.0), (10**12, 1.0)))), InvalidRequest, "logit_bias"),
        (Request(scene(1), sampling=Sampling(logit_bias=((-1, 1.0),))), InvalidRequest, "logit_bias"),
    ],
)
def test_a_bad_request_fails_alone(
    engines: dict[str, Engine], request_: Request, kind: type[VlmError], param: str
) -> None:
    async def with_company() -> list[Completion | VlmError]:
        return await asyncio.gather(*(outcome(engines[FLORENCE], one) for one in (REQUEST, request_, REQUEST)))

    first, bad, last = asyncio.run(with_company())
    assert type(bad) is kind
    assert isinstance(first, Completion)
    assert isinstance(last, Completion)
    assert comparable(first) == comparable(last)
    assert_empty(engines[FLORENCE])


def test_a_prompt_that_fills_the_context_is_refused(engines: dict[str, Engine]) -> None:
    answer = asyncio.run(outcome(engines[BLIP], Request(scene(1), task=Task("caption", text="red " * 70))))
    assert isinstance(answer, InvalidRequest)
    assert answer.code == "context_length_exceeded"


class Times:
    """Raises at the calls of these numbers."""

    def __init__(self, error: Exception, *numbers: int) -> None:
        self.error, self.numbers, self.calls = error, numbers, 0

    def __call__(self, *args: object, **more: object) -> None:
        self.calls += 1
        if self.calls in self.numbers:
            raise self.error


def test_a_model_that_fails_once_fails_one_batch_only(caplog: pytest.LogCaptureFixture) -> None:
    async def three(engine: Engine) -> list[Completion | VlmError]:
        return [await outcome(engine, REQUEST) for _ in range(3)]

    with Engine(faulty_model(miniature(BLIP), "forward", Times(RuntimeError("oh"), 2)), SMALL) as engine:
        assert [type(answer) for answer in asyncio.run(three(engine))] == [EngineFailure, Completion, Completion]
        assert engine.healthy
        assert_empty(engine)


def test_a_broken_device_ends_everyone_and_shows(caplog: pytest.LogCaptureFixture) -> None:
    async def crowded(engine: Engine) -> list[Completion | VlmError]:
        return await asyncio.gather(*(outcome(engine, REQUEST) for _ in range(9)))

    gone = Times(torch.AcceleratorError("the device is gone"), 2)
    with Engine(faulty_model(miniature(BLIP), "forward", gone), EngineConfig(2, cache_bytes=2**26)) as engine:
        answers = asyncio.run(crowded(engine))
        assert {type(answer) for answer in answers} <= {EngineLost, EngineClosed}
        assert sum(type(answer) is EngineLost for answer in answers) >= 2, "those that were on the device"
        assert not engine.healthy
        assert type(asyncio.run(outcome(engine, REQUEST))) is EngineClosed
        assert_empty(engine)


@pytest.mark.parametrize("method", ["parse", "decode"])
def test_a_processor_that_raises_on_the_device_thread_does_not_end_it(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    fault = Times(KeyError("unread"), 3 if method == "decode" else 1)

    async def two(engine: Engine) -> list[Completion | VlmError]:
        return [await outcome(engine, REQUEST) for _ in range(2)]

    with Engine(faulty_processor(miniature(BLIP), method, fault), SMALL) as engine:
        assert [type(answer) for answer in asyncio.run(two(engine))] == [EngineFailure, Completion]
        assert engine.healthy


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_that_ends_the_device_thread_leaves_no_client_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither whom it was working for, nor whose request has just come in."""
    engine = Engine(miniature(BLIP), SMALL)

    def buggy() -> None:
        patience = 200  # the other may already have been taken out, together with the first
        while engine._inbox.empty() and (patience := patience - 1):
            time.sleep(0.001)
        raise AssertionError("a bug of ours")

    async def two() -> list[Completion | VlmError]:
        asked = asyncio.gather(*(outcome(engine, REQUEST) for _ in range(2)))
        return await asyncio.wait_for(asked, 10)

    monkeypatch.setattr(engine._core, "step", buggy)
    engine.start()
    assert {type(answer) for answer in asyncio.run(two())} == {EngineLost}
    assert {type(answer) for answer in asyncio.run(two())} == {EngineClosed}
    engine._thread.join()
    assert not engine.healthy
    engine.stop()


def test_a_client_that_reads_slowly_does_not_slow_others() -> None:
    """It gets one chunk and then waits for the others: their answers come, and its own has grown meanwhile."""
    forwards = Times(RuntimeError())
    fast_done = threading.Event()

    async def slow(engine: Engine) -> list[Chunk]:
        chunks = []
        async for chunk in engine.generate(ENDLESS):
            chunks.append(chunk)
            await asyncio.to_thread(fast_done.wait, 10)
        return chunks

    async def both(engine: Engine) -> list[Chunk]:
        slow_one = asyncio.ensure_future(slow(engine))
        await gathered(engine, [ENDLESS] * 4)
        await eventually(lambda: not engine.stats().running)
        fast_done.set()
        return await slow_one

    with Engine(faulty_model(miniature(BLIP), "forward", forwards), SMALL) as engine:
        chunks = asyncio.run(both(engine))
    assert forwards.calls <= 2 * 60 + 5  # two waves at worst; a slow reader in the way would add its own 60
    assert len(chunks) <= 3, "what piled up came as one"
    assert sum(len(chunk.token_ids) for chunk in chunks) == 60


def test_clients_of_two_event_loops_are_served_at_once(engines: dict[str, Engine]) -> None:
    requests, answers = crowd(FLORENCE, 12, seed=6), {}

    def loop_of_its_own(index: int) -> None:
        answers[index] = asyncio.run(gathered(engines[FLORENCE], requests))

    threads = [threading.Thread(target=loop_of_its_own, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(map(comparable, answers[0])) == list(map(comparable, answers[1]))
    assert_empty(engines[FLORENCE])


def test_an_event_loop_that_closes_in_the_middle_aborts_its_requests(
    engines: dict[str, Engine], caplog: pytest.LogCaptureFixture
) -> None:
    """No task is cancelled and no generator closed: only the engine can notice."""
    loop = asyncio.new_event_loop()
    chunks = [generate(engines[BLIP], ENDLESS) for _ in range(3)]
    for one in chunks:
        loop.run_until_complete(one.__anext__())
    loop.close()
    assert_empty(engines[BLIP])
    assert "closed with" in caplog.text
    assert asyncio.run(engines[BLIP].complete(REQUEST)).text


def test_the_places_of_a_closed_event_loop_are_given_back_when_they_are_needed() -> None:
    """Also of requests that the device thread has never seen; this engine's does not run."""
    engine = Engine(miniature(BLIP), EngineConfig(cache_bytes=2**26, max_batch=1, max_waiting=0))
    loop = asyncio.new_event_loop()
    left = loop.create_task(engine.complete(REQUEST))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert engine.stats().used_places == 1

    async def another() -> None:
        accepted = asyncio.create_task(engine.complete(REQUEST))
        await asyncio.sleep(0)
        assert isinstance(await outcome(engine, REQUEST), Overloaded)
        await asyncio.to_thread(engine.stop)
        with pytest.raises(EngineFailure, match="stopping"):
            await accepted

    asyncio.run(another())
    assert_empty(engine)
    assert not left.done()


def test_stopping_ends_running_waiting_and_preparing_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread prepares, and is busy with the last image when the engine stops."""
    monkeypatch.setattr(prepare, "QUICK_BYTES", 0)  # so that the thread prepares all of them
    last, stopped = threading.Event(), threading.Event()

    def slowly(request: Request, *_: object) -> None:
        if request.prompt == "last":
            last.set()
            stopped.wait(10)

    async def crowded(engine: Engine) -> list[Completion | VlmError]:
        late = Request(scene(1), "last")
        tasks = [asyncio.ensure_future(outcome(engine, one)) for one in (*[ENDLESS] * 3, late, late, REQUEST)]
        await asyncio.to_thread(last.wait, 10)
        stopping = asyncio.ensure_future(asyncio.to_thread(engine.stop))
        await eventually(lambda: engine._stopping)
        forwards.open()
        await stopping
        stopped.set()
        return await asyncio.wait_for(asyncio.gather(*tasks), 10)

    forwards = Gate(1)  # so that none is done before
    engine = Engine(
        faulty_processor(faulty_model(miniature(BLIP), "forward", forwards), "prepare", slowly),
        EngineConfig(2, cache_bytes=2**26, prepare_threads=1),
    ).start()
    assert {type(answer) for answer in asyncio.run(crowded(engine))} == {EngineClosed}
    assert not engine.healthy
    assert_empty(engine)


def test_stopping_again_or_before_the_start_is_harmless() -> None:
    engine = Engine(miniature(BLIP), SMALL)
    assert engine.healthy
    engine.stop()
    engine.stop()
    assert isinstance(asyncio.run(outcome(engine, REQUEST)), EngineFailure)


def test_stopping_before_the_start_ends_waiting_requests() -> None:
    async def early(engine: Engine) -> Completion | VlmError:
        task = asyncio.ensure_future(outcome(engine, REQUEST))
        await eventually(lambda: not engine._inbox.empty())
        engine.stop()
        return await asyncio.wait_for(task, 10)

    assert isinstance(asyncio.run(early(Engine(miniature(BLIP), SMALL))), EngineFailure)


def test_timings_follow_each_other(engines: dict[str, Engine]) -> None:
    for completion in asyncio.run(gathered(engines[BLIP], [REQUEST] * 5)):
        timings = completion.timings
        assert timings.prepare_ms > 0
        assert 0 <= timings.queue_ms <= timings.first_token_ms
        assert timings.prepare_ms + timings.first_token_ms <= timings.total_ms
        assert 0 <= timings.encode_ms <= timings.first_token_ms - timings.queue_ms


MINIMA = {
    "max_batch": 1, "max_waiting": 0, "caller_share": 1, "slot_reserve": 0, "max_prefill": 1, "cache_bytes": 1,
    "encoder_cache_bytes": 0, "workspace_bytes": 0, "processor_cache_bytes": 0, "prepare_threads": 1,
    "decode_processes": 0, "decode_timeout_s": 1, "decode_memory_bytes": 1,
}  # fmt: skip


@pytest.mark.parametrize(("setting", "minimum"), MINIMA.items())
def test_a_setting_below_its_minimum_is_an_error_that_names_it(setting: str, minimum: int) -> None:
    wrong: dict[str, Any] = {setting: minimum - 1}
    with pytest.raises(ConfigError, match=f"{setting} must be at least {minimum}") as caught:
        EngineConfig(**wrong)
    assert caught.value.param == setting
    least: dict[str, Any] = {setting: minimum}
    assert getattr(EngineConfig(**least), setting) == minimum


def test_a_setting_above_its_maximum_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="caller_share must be at most 100") as caught:
        EngineConfig(caller_share=101)
    assert caught.value.param == "caller_share"
    assert EngineConfig(caller_share=100).caller_share == 100


def test_every_setting_is_tested() -> None:
    assert [one.name for one in fields(EngineConfig)] == [*MINIMA]
    assert EngineConfig(max_batch=3, max_waiting=4).capacity == 7
