"""Real answers of the miniatures, cut at every chunk: what the client gets is the answer alone, of whatever kind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch

from router.admission.capacity import Capacity
from router.backends.base import LocalBackend, ModelStatus
from router.resilience.resilient import ResilientBackend, repeatable
from router.resilience.retry_policy import RetryPolicy
from tests.images import scene
from tests.router.resilience.world import CLOSED, GONE, LOST, MODEL, Scripted, read, regrouped
from tests.vlm.engine.world import BLIP, FLORENCE, KOSMOS, comparable, crowd, faulty_model, miniature
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import EngineFailure, LostTooOften
from vlm.types import Chunk, Completion, Request, Sampling, Task

MOONDREAM = "moondream-2"
CONFIG = EngineConfig(max_batch=8, cache_bytes=64 * 1024**2)
AT_ONCE = RetryPolicy(first_pause_s=0.0, longest_pause_s=0.0)
GREEDY = Sampling(max_tokens=25, num_beams=1, temperature=0.0, repetition_penalty=5.0)
DRAWN = Sampling(max_tokens=25, num_beams=1, temperature=2.0, seed=11)
KINDS: dict[str, tuple[str, Request]] = {
    "greedy": (BLIP, Request(scene(1), sampling=GREEDY)),
    "beams": (BLIP, Request(scene(2), sampling=replace(GREEDY, num_beams=3))),
    "drawn": (BLIP, Request(scene(3), "a", sampling=DRAWN)),
    "stop strings": (BLIP, Request(scene(3), sampling=replace(GREEDY, stop=("qqq", "of a blue x")))),
    "log-probabilities": (BLIP, Request(scene(4), sampling=replace(DRAWN, logprobs=True, top_logprobs=2))),
    "choices": (BLIP, Request(scene(5), sampling=replace(DRAWN, logprobs=True), n=3)),
    "regions": (KOSMOS, Request(scene(6), "<grounding>An image of")),
    "drawn words": (FLORENCE, Request(scene(7), "<MORE_DETAILED_CAPTION>", sampling=DRAWN)),
    "detection": (FLORENCE, Request(scene(1), task=Task("detect"))),
    "reasoning": (MOONDREAM, Request(scene(1), task=Task("query", text="How many shapes are there?", reasoning=True))),
    "points": (MOONDREAM, Request(scene(1), task=Task("point", labels=("red square", "blue circle")))),
    "sentences": (MOONDREAM, Request(scene(2), task=Task("caption", length="long"))),
}  # fmt: skip
ONE_CHUNK = {"beams", "detection", "points"}
"""Answers that come as one chunk however they are asked for."""


async def gather(engine: Engine, request: Request) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


@cache
def recorded(kind: str) -> tuple[Completion, Sequence[Chunk], Sequence[Chunk]]:
    """The answer alone, and the chunks of two streams: one alone, and one of another engine in the midst of others."""
    name, request = KINDS[kind]

    async def in_a_crowd(engine: Engine) -> list[Chunk]:
        others = [gather(engine, one) for one in crowd(name, 5)] if name != MOONDREAM else []
        return (await asyncio.gather(gather(engine, request), *others))[0]

    with Engine(miniature(name), CONFIG) as first, Engine(miniature(name), CONFIG) as second:
        alone = asyncio.run(first.complete(request))
        return alone, asyncio.run(gather(first, request)), asyncio.run(in_a_crowd(second))


def assert_is_the_answer(kind: str, chunks: Sequence[Chunk]) -> None:
    alone, once, _again = recorded(kind)
    joined, expected = Chunk.joined(chunks), Chunk.joined(once)
    assert joined.completion is not None
    assert comparable(joined.completion) == comparable(alone)
    assert [comparable(one) for one in joined.completion.choices] == [comparable(one) for one in alone.choices]
    assert [chunk.completion for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    answers = alone.choices or (alone,)
    for one, same, answer in zip(joined.choices or [joined], expected.choices or [expected], answers, strict=True):
        assert one.text == answer.text
        assert one.reasoning == same.reasoning == (answer.reasoning or "")
        assert one.token_ids == answer.token_ids
        assert one.logprobs == pytest.approx(answer.logprobs, abs=1e-4)
        assert one.token_bytes == answer.token_bytes
        assert [[(top.token_id, top.token_bytes) for top in step] for step in one.top_logprobs] == [
            [(top.token_id, top.token_bytes) for top in step] for step in answer.top_logprobs
        ]


@pytest.mark.parametrize("error", [LOST, GONE, CLOSED], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_cut_at_any_chunk_is_the_answer_alone(kind: str, error: EngineFailure) -> None:
    _alone, once, again = recorded(kind)
    assert (len(once) == 1) == (kind in ONE_CHUNK)
    rng = random.Random(kind)

    async def cut_at(end: int) -> list[Chunk]:
        early = regrouped(once[:end], [rng.randrange(len(once)) for _ in range(4)])
        late = regrouped(again, [rng.randrange(len(again)) for _ in range(4)])
        one = ResilientBackend(Scripted([*early, error], late), AT_ONCE)
        chunks, ended = await read(one, KINDS[kind][1])
        assert ended is None
        assert sum(one.stats.resumed.values()) == (end > 0)
        return chunks

    for end in range(len(once)):
        assert_is_the_answer(kind, asyncio.run(cut_at(end)))


class Cutting:
    """Sends each attempt to the next engine, and cuts it after so many chunks; the last one is not cut."""

    def __init__(self, engines: Sequence[Engine], cuts: Sequence[int]) -> None:
        self._backends = [LocalBackend({MODEL: engine}) for engine in engines]
        self._cuts = list(cuts)
        self.attempts = 0

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        chunks = self._backends[self.attempts % len(self._backends)].generate(model, request)
        left = self._cuts[self.attempts] if self.attempts < len(self._cuts) else -1
        self.attempts += 1
        try:
            while left != 0:
                left -= 1
                yield await anext(chunks)
        except StopAsyncIteration:
            return
        finally:
            await chunks.aclose()
        raise CLOSED

    async def models(self) -> Sequence[ModelStatus]:
        return ()

    def capacity(self, model: str) -> Capacity:
        return Capacity(1)

    def serves(self, model: str) -> bool:
        return True

    def names(self) -> Collection[str]:
        return ["blip-large"]

    async def asleep(self, model: str) -> bool:
        return False


def test_answers_go_from_one_engine_to_another_and_back() -> None:
    """Under load, each cut three times; unseeded draws get the seed that makes them the same again."""
    requests = [request for name, request in KINDS.values() if name == BLIP]
    requests += [replace(one, sampling=replace(one.sampling, seed=None)) for one in requests]
    policy = replace(AT_ONCE, floor=1000)
    rng = random.Random(0)

    async def ask(engines: list[Engine], request: Request) -> None:
        backend = Cutting(engines, [rng.randrange(12) for _ in range(3)])
        chunks, ended = await read(ResilientBackend(backend, policy), request)
        assert ended is None
        joined = Chunk.joined(chunks)
        assert joined.completion is not None
        for one, answer in zip(
            joined.choices or [joined], joined.completion.choices or [joined.completion], strict=True
        ):
            assert (one.text, one.token_ids) == (answer.text, answer.token_ids)
        if request.sampling.seed is not None or not request.sampling.temperature:
            assert comparable(joined.completion) == comparable(await engines[0].complete(request))

    async def ask_all(engines: list[Engine]) -> None:
        await asyncio.gather(*(ask(engines, request) for request in requests))

    with Engine(miniature(BLIP), CONFIG) as first, Engine(miniature(BLIP), CONFIG) as second:
        asyncio.run(ask_all([first, second]))


def test_a_stream_outlives_the_engine_that_is_stopped_under_it() -> None:
    name, request = KINDS["log-probabilities"]
    alone = recorded("log-probabilities")[0]

    async def ask(first: Engine, second: Engine) -> list[Chunk]:
        one = ResilientBackend(Cutting([first, second], []), AT_ONCE)
        found = []
        async for chunk in one.generate(MODEL, request):
            found.append(chunk)
            if len(found) == 1:
                await asyncio.to_thread(first.stop)
        return found

    with Engine(miniature(name), CONFIG) as first, Engine(miniature(name), CONFIG) as second:
        chunks = asyncio.run(ask(first, second))
    assert Chunk.joined(chunks).text == alone.text


def test_a_request_that_breaks_devices_breaks_two_at_most() -> None:
    def gone(*_arguments: object) -> None:
        raise torch.AcceleratorError("the device is gone")

    broken = [Engine(faulty_model(miniature(BLIP), "forward", gone), CONFIG) for _ in range(2)]
    with broken[0], broken[1], Engine(miniature(BLIP), CONFIG) as third:
        backend = Cutting([*broken, third], [])
        chunks, error = asyncio.run(read(ResilientBackend(backend, AT_ONCE), Request(scene(1))))
        assert (chunks, type(error)) == ([], LostTooOften)
        assert backend.attempts == 2
        assert [engine.healthy for engine in (*broken, third)] == [False, False, True]

        next_one = Cutting([*broken, third], [])  # it finds them broken, and is not to blame
        chunks, error = asyncio.run(read(ResilientBackend(next_one, AT_ONCE), Request(scene(1))))
        assert (error, next_one.attempts) == (None, 3)


def test_a_draw_without_a_seed_is_a_draw_still() -> None:
    request = replace(KINDS["drawn"][1], sampling=replace(DRAWN, seed=None))
    with Engine(miniature(BLIP), CONFIG) as engine:
        texts = {asyncio.run(engine.complete(repeatable(request))).text for _ in range(5)}
    assert len(texts) > 1
