"""The spans of a replica, on a miniature: what its engine measured, and what a request costs that asks for none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import pytest

from deployments import replica as module
from deployments.config import ModelConfig
from deployments.replica import Replica
from deployments.replica_traces import MAX_TARGETS, ReplicaTraces
from logs.trace_id import TRACE_ID
from tests.images import hand_drawn
from tests.traces.kept import Kept
from traces.context import Context
from vlm.engine.config import EngineConfig
from vlm.trace import Trace
from vlm.types import Request, Sampling, Task

T = TypeVar("T")

MINIATURE = Path(__file__).parents[2] / "miniatures/florence-2-base"
TARGET = "http://collector.invalid:4318"
CALL = Context.new(sampled=True)
STAGES = ["prepare", "queue", "prefill", "decode", "encode"]


def traced(image: bytes | None = None, context: Context = CALL, target: str = TARGET, **fields: object) -> Request:
    trace = Trace(context.header, target)
    return Request(image or hand_drawn(), trace=trace, request_id="req_1", **fields)  # type: ignore[arg-type]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def replica(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replica]:
    monkeypatch.setattr(module, "ReplicaTraces", lambda identity: ReplicaTraces(identity, lambda target: kept))
    engine = EngineConfig(max_batch=2, max_waiting=6, caller_share=100, cache_bytes=16 * 1024**2, prepare_threads=1)
    made = Replica(ModelConfig(checkpoint=str(MINIATURE), device="cpu", engine=engine))
    yield made
    made.__del__()
    assert kept.stopped or not kept.spans


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def within() -> T:
        return await asyncio.wait_for(work(), 60)

    return asyncio.run(within())


async def stream(replica: Replica, request: Request) -> None:
    async for chunk in replica.generate(request):
        assert chunk.error is None


@pytest.mark.parametrize("streams", [True, False])
def test_an_answer_has_a_span_and_its_stages(replica: Replica, kept: Kept, streams: bool) -> None:
    request = traced(stream=streams)
    run(lambda: stream(replica, request) if streams else replica.answer(request))
    assert kept.names == [*STAGES, "answer"]
    answer = kept.one("answer")
    assert answer.parent == CALL
    assert {one.context.trace_id for one in kept.spans} == {CALL.trace_id}
    assert answer.attributes["gigarouter.request_id"] == "req_1"
    assert answer.attributes["gen_ai.usage.output_tokens"] != 0
    prepare, queue, prefill, decode, encode = (kept.one(name) for name in STAGES)
    assert answer.began_ns <= prepare.began_ns <= prepare.ended_ns == queue.began_ns <= queue.ended_ns
    assert queue.ended_ns == prefill.began_ns == encode.began_ns < encode.ended_ns <= prefill.ended_ns
    assert prefill.ended_ns == decode.began_ns < decode.ended_ns <= answer.ended_ns


def test_an_image_that_was_encoded_before_is_not_encoded_again(replica: Replica, kept: Kept) -> None:
    run(lambda: replica.answer(traced()))
    kept.spans.clear()
    run(lambda: replica.answer(traced(task=Task("detect"))))
    assert kept.names == ["prepare", "queue", "prefill", "decode", "answer"]
    assert kept.one("answer").attributes["gen_ai.usage.cache_read.input_tokens"] != 0


def test_a_request_of_several_generations_has_one_of_each_stage(replica: Replica, kept: Kept) -> None:
    run(lambda: replica.answer(traced(tasks=(Task("caption"), Task("detect")))))
    assert sorted(set(kept.names)) == sorted(kept.names) == sorted([*STAGES, "answer"])
    assert all(span.began_ns <= span.ended_ns for span in kept.spans)


@pytest.mark.parametrize("streams", [True, False])
def test_a_mistake_of_the_client_is_not_the_replicas_fault(replica: Replica, kept: Kept, streams: bool) -> None:
    async def work() -> None:
        request = traced(b"no image", stream=streams)
        chunks = [chunk async for chunk in replica.generate(request)] if streams else [await replica.answer(request)]
        assert chunks[-1].error is not None

    run(work)
    assert kept.names == ["answer"]
    assert (kept.one("answer").attributes["error.type"], kept.one("answer").failed) == ("InvalidImage", False)


def test_an_answer_that_is_given_up_has_a_span(replica: Replica, kept: Kept) -> None:
    async def work() -> None:
        request = traced(prompt="<MORE_DETAILED_CAPTION>", sampling=Sampling(repetition_penalty=10.0, num_beams=1))
        async with aclosing(replica.generate(request)) as chunks:
            await anext(chunks)

    run(work)
    assert kept.names == ["answer"]
    assert kept.one("answer").ended_ns


@pytest.mark.parametrize(
    "trace", [None, Trace("nonsense", TARGET), Trace(CALL.header), Trace(Context.new(sampled=False).header, TARGET)]
)
def test_a_request_that_is_not_recorded_leaves_nothing(replica: Replica, kept: Kept, trace: Trace | None) -> None:
    run(lambda: replica.answer(Request(hand_drawn(), trace=trace)))
    assert kept.spans == []


def test_lines_of_the_log_have_the_id_of_the_trace(replica: Replica) -> None:
    async def work() -> str:
        await replica.answer(traced(context=Context.new(CALL.trace_id, sampled=False)))
        return TRACE_ID.get()

    assert run(work) == CALL.trace_id


def test_a_replica_sends_to_a_bounded_number_of_targets() -> None:
    made: dict[str, Kept] = {}

    def make(target: str) -> Kept:
        made[target] = Kept()
        return made[target]

    traces = ReplicaTraces(dict, make)
    for number in range(2 * MAX_TARGETS):
        traces._recorder(f"http://collector-{number}:4318")
        traces._recorder("http://collector-0:4318")
    assert len(made) == MAX_TARGETS
    traces.stop()
    assert all(kept.stopped for kept in made.values())
