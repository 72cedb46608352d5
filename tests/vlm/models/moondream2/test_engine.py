"""The original's answers once more, from the engine: all at once, images shared, blocks scarce."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.vlm.models.moondream2.driver import DATA, Alone
from tests.vlm.models.moondream2.test_golden import (
    ANSWERED,
    CASES,
    MARK_IN_WORDS,
    MOST,
    assert_equal,
    expected_of,
    inputs_of,
    request_of,
    result_of,
)
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.types import Chunk, Completion, Sampling

NAMES = [name for name in ANSWERED if name != MARK_IN_WORDS]
SOME = ("c00", "c12", "c28", "c38", "c43")


def as_alone(name: str, completion: Completion) -> Alone:
    """The ids; after short reasoning, those of the answer are cut as in the original."""
    ids, inputs = list(completion.token_ids), inputs_of(name)
    end = len(ids) if inputs.max_reasoning_tokens is None else ids.index(3) + 1 + MOST
    return Alone(inputs, ids[:end])


def check(names: list[str], config: EngineConfig) -> list[Completion]:
    async def together(engine: Engine) -> list[Completion]:
        return await asyncio.gather(*(engine.complete(request_of(CASES[name])) for name in names))

    with Engine(load(DATA, dtype="float32", device="cpu"), config) as engine:
        completions = asyncio.run(together(engine))
    for name, completion in zip(names, completions, strict=True):
        assert_equal(result_of(as_alone(name, completion)), expected_of(CASES[name]))
    return completions


def test_some_answers_in_one_batch_are_the_originals() -> None:
    check([*SOME, *SOME], EngineConfig(cache_bytes=64 * 1024**2))


@pytest.mark.real
def test_all_answers_in_one_batch_are_the_originals() -> None:
    check(NAMES, EngineConfig())


@pytest.mark.real
def test_all_answers_are_the_originals_even_if_blocks_are_scarce() -> None:
    """Sequences are preempted, and images evicted and encoded again."""
    check(NAMES, EngineConfig(cache_bytes=12 * 1024**2))


def test_reasoning_is_streamed_before_the_answer() -> None:
    async def streamed(engine: Engine) -> list[Chunk]:
        return [chunk async for chunk in engine.generate(request_of(CASES["c12"]))]

    with Engine(load(DATA, dtype="float32", device="cpu"), EngineConfig(cache_bytes=64 * 1024**2)) as engine:
        chunks = asyncio.run(streamed(engine))
    whole = chunks[-1].completion
    assert whole is not None
    assert "".join(chunk.text for chunk in chunks) == whole.text == whole.grounding.text
    assert whole.text.startswith(CASES["c12"]["result"]["answer"].strip())
    assert whole.grounding.reasoning == CASES["c12"]["result"]["reasoning"]["text"]
    assert "".join(chunk.reasoning for chunk in chunks) == whole.grounding.reasoning == whole.reasoning
    last_thought = max(index for index, chunk in enumerate(chunks) if chunk.reasoning)
    assert not any(chunk.text for chunk in chunks[:last_thought])
    assert whole.usage.reasoning_tokens == whole.token_ids.index(3) + 1
    assert [one.point for one in whole.grounding.detections]


@pytest.mark.parametrize(("max_objects", "max_tokens", "reason"), [(2, None, "stop"), (2, 6, "stop"), (3, 6, "length")])
def test_an_answer_with_all_the_objects_that_were_asked_for_has_ended_by_itself(
    max_objects: int, max_tokens: int | None, reason: str
) -> None:
    request = request_of(CASES["c43"])
    assert request.task is not None
    task = replace(request.task, max_objects=max_objects)
    request = replace(request, task=task, sampling=Sampling(max_tokens=max_tokens))
    with Engine(load(DATA, dtype="float32", device="cpu"), EngineConfig(cache_bytes=64 * 1024**2)) as engine:
        answer = asyncio.run(engine.complete(request))
    assert (len(answer.grounding.detections), answer.finish_reason, answer.grounding.truncated) == (2, reason, False)


def test_an_object_that_is_not_sure_enough_is_left_out() -> None:
    request = request_of(CASES["c43"])
    assert request.task is not None
    sure_request = replace(request, task=replace(request.task, threshold=1.0))

    async def both(engine: Engine) -> tuple[Completion, Completion]:
        return await asyncio.gather(engine.complete(request), engine.complete(sure_request))

    with Engine(load(DATA, dtype="float32", device="cpu"), EngineConfig(cache_bytes=64 * 1024**2)) as engine:
        every, sure = asyncio.run(both(engine))
    assert all(0 < (one.score or 0) < 1 for one in every.grounding.detections)
    assert every.grounding.detections
    assert not sure.grounding.detections
