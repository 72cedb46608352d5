"""Several answers to one request: each is what a request of its own gets, and nothing of them is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.images import scene
from tests.vlm.engine.world import (
    BLIP,
    FLORENCE,
    Gate,
    assert_empty,
    comparable,
    eventually,
    faulty_model,
    miniature,
)
from vlm.engine.choices import seed_of, split
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import EngineFailure, InvalidRequest, Overloaded
from vlm.types import Chunk, Completion, Request, Sampling, Task

SMALL = EngineConfig(cache_bytes=64 * 1024**2)
THREE = EngineConfig(max_batch=2, max_waiting=1, caller_share=100, cache_bytes=64 * 1024**2)
DRAWN = Sampling(max_tokens=20, temperature=2.0, seed=7, num_beams=1)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(miniature(BLIP), SMALL) as one:
        yield one
        assert_empty(one)


def complete(engine: Engine, request: Request) -> Completion:
    return asyncio.run(engine.complete(request))


def streamed(engine: Engine, request: Request) -> list[Chunk]:
    async def read() -> list[Chunk]:
        return [chunk async for chunk in engine.generate(request)]

    return asyncio.run(read())


def test_each_choice_is_what_a_request_with_its_seed_gets(engine: Engine) -> None:
    request = Request(scene(1), sampling=DRAWN, n=4)
    answer = complete(engine, request)
    alone = [complete(engine, one) for one in split(request)]
    assert [comparable(one) for one in answer.choices] == [comparable(one) for one in alone]
    assert len({one.token_ids for one in answer.choices}) > 1, "choices draw numbers of their own"
    assert comparable(answer.choices[0]) == comparable(complete(engine, replace(request, n=1)))
    assert (answer.text, answer.grounding) == (alone[0].text, answer.choices[0].grounding)


def test_more_choices_do_not_change_those_that_there_are(engine: Engine) -> None:
    two, five = (complete(engine, Request(scene(1), sampling=DRAWN, n=count)).choices for count in (2, 5))
    assert [one.token_ids for one in five[:2]] == [one.token_ids for one in two]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 7))
def test_seeds_of_choices_differ(seed: int, index: int) -> None:
    assert seed_of(seed, 0) == seed
    assert -(2**63) <= seed_of(seed, index) < 2**63
    assert len({seed_of(seed, index), seed_of(seed, index - 1), seed_of(seed + 1, index)}) == 3


def test_without_a_seed_each_choice_has_its_own_numbers() -> None:
    assert [one.sampling.seed for one in split(Request(None, n=3))] == [None] * 3
    first, _ = split(Request(None, sampling=Sampling(seed=0), n=2))
    assert (first.n, first.sampling.seed) == (1, 0)


def test_greedy_choices_are_equal_and_the_prompt_counts_once(engine: Engine) -> None:
    alone = complete(engine, Request(scene(6), sampling=Sampling(num_beams=1)))
    answer = complete(engine, Request(scene(6), sampling=Sampling(num_beams=1), n=3))
    assert [one.token_ids for one in answer.choices] == [alone.token_ids] * 3
    usage = answer.usage
    assert (usage.image_tokens, usage.text_tokens) == (alone.usage.image_tokens, alone.usage.text_tokens)
    assert usage.completion_tokens == 3 * alone.usage.completion_tokens
    assert usage.cached_tokens == alone.usage.image_tokens, "it had been encoded for the request before"


def test_a_search_may_be_made_several_times() -> None:
    with Engine(miniature(FLORENCE), SMALL) as engine:
        request = Request(scene(2), "<OD>", sampling=Sampling(num_beams=3), n=2)
        answer = complete(engine, request)
        alone = complete(engine, replace(request, n=1))
        assert [one.token_ids for one in answer.choices] == [alone.token_ids] * 2
        assert_empty(engine)


def test_the_image_is_encoded_once() -> None:
    with Engine(miniature(BLIP), SMALL) as engine:
        complete(engine, Request(scene(3), sampling=DRAWN, n=8))
        assert engine.stats().images_encoded == 1


def test_a_stream_has_the_pieces_of_every_choice(engine: Engine) -> None:
    request = Request(scene(1), sampling=replace(DRAWN, logprobs=True, top_logprobs=2), n=3)
    *pieces, last = streamed(engine, request)
    assert last.completion is not None
    whole = complete(engine, request)
    assert [comparable(one) for one in last.completion.choices] == [comparable(one) for one in whole.choices]
    assert all(chunk.completion is None and chunk.text == "" for chunk in pieces)
    assert len(pieces) > 3, "they come as they grow"
    for one, answer in zip(Chunk.joined([*pieces, last]).choices, last.completion.choices, strict=True):
        assert (one.text, one.token_ids, one.logprobs) == (answer.text, answer.token_ids, answer.logprobs)
        assert (one.token_bytes, one.top_logprobs) == (answer.token_bytes, answer.top_logprobs)
    assert Chunk.joined([*pieces, last]).completion is last.completion


def test_an_answer_that_does_not_stream_is_one_chunk(engine: Engine) -> None:
    [only] = streamed(engine, Request(scene(1), sampling=DRAWN, stream=False, n=2))
    assert only.completion is not None
    assert [one.text for one in only.choices] == [one.text for one in only.completion.choices]
    assert [one.index for one in only.choices] == [0, 1]


@pytest.mark.parametrize(
    "request_",
    [
        Request(scene(1), tasks=(Task("caption"),), n=2),
        Request(scene(1), task=Task("detect", labels=("circle", "square")), n=2),
        Request(None, task=Task("detect"), images=(scene(1), scene(2)), n=2),
    ],
)
def test_several_tasks_or_labels_have_one_answer(request_: Request) -> None:
    with Engine(miniature(FLORENCE), SMALL) as engine:
        with pytest.raises(InvalidRequest, match="several tasks, labels or images") as caught:
            complete(engine, request_)
        assert (caught.value.param, caught.value.code) == ("n", "invalid_value")
        assert_empty(engine)


@pytest.mark.parametrize("n", [0, 9, -1])
def test_n_is_from_1_to_8(n: int) -> None:
    with pytest.raises(InvalidRequest, match="n must be from 1 to 8") as caught:
        Request(None, n=n)
    assert caught.value.param == "n"


def test_a_request_gets_the_places_of_all_its_choices_or_none() -> None:
    """Three places: four choices can never have them, and three only while nobody else has one."""
    gate = Gate(1)

    async def ask(engine: Engine) -> None:
        with pytest.raises(InvalidRequest, match="at most 3 of the model's 3") as caught:
            await engine.complete(Request(scene(1), sampling=DRAWN, n=4))
        assert caught.value.param == "n"
        first = asyncio.create_task(engine.complete(Request(scene(1), sampling=DRAWN, n=2)))
        await eventually(lambda: engine.stats().used_places == 2)
        assert engine.stats().accepted == 1
        with pytest.raises(Overloaded):
            await engine.complete(Request(scene(1), sampling=DRAWN, n=2))
        assert engine.stats().used_places == 2, "nothing is kept of what was refused"
        gate.open()
        assert len((await first).choices) == 2
        assert len((await engine.complete(Request(scene(1), sampling=DRAWN, n=3))).choices) == 3

    with Engine(faulty_model(miniature(BLIP), "encode_images", gate), THREE) as engine:
        asyncio.run(ask(engine))
        assert_empty(engine)


def test_a_failure_ends_all_choices() -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    with Engine(faulty_model(miniature(BLIP), "encode_images", fail), SMALL) as engine:
        with pytest.raises(EngineFailure):
            complete(engine, Request(scene(1), sampling=DRAWN, n=3))
        assert_empty(engine)


def test_a_client_that_leaves_frees_all_choices(engine: Engine) -> None:
    async def leave() -> None:
        chunks = engine.generate(Request(scene(4), sampling=replace(DRAWN, max_tokens=400), n=4))
        await anext(chunks)
        await chunks.aclose()
        assert engine.stats().used_places == 0

    asyncio.run(leave())
    assert_empty(engine)
