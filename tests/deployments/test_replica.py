"""A replica without Ray: the class that Serve would instantiate, on a miniature."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest

from deployments.config import ModelConfig
from deployments.gpu import gpu_fraction
from deployments.pacing import paced
from deployments.replica import Replica, log
from logs.lines import STAMP
from logs.request_id import REQUEST_ID
from tests.clock import run_clocked
from tests.images import hand_drawn
from tests.router.world import words
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import CheckpointError, EngineFailure, InvalidImage, Overloaded, UnsupportedTask
from vlm.types import Chunk, Completion, Request, Sampling, Task

T = TypeVar("T")

MINIATURES = Path(__file__).parents[2] / "miniatures"
CAPTION = "a red circle left of a blue square"
LONG = Request(hand_drawn(), "<MORE_DETAILED_CAPTION>", sampling=Sampling(repetition_penalty=10.0, num_beams=1))
"""Its answer has hundreds of tokens and goes on to the end of the miniature's context."""


def small(name: str) -> Replica:
    engine = EngineConfig(max_batch=2, max_waiting=1, caller_share=100, cache_bytes=16 * 1024**2, prepare_threads=1)
    return Replica(ModelConfig(checkpoint=str(MINIATURES / name), device="cpu", engine=engine))


@pytest.fixture
def replica() -> Iterator[Replica]:
    made = small("blip-large")
    yield made
    made.__del__()


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def within() -> T:
        return await asyncio.wait_for(work(), 30)

    return asyncio.run(within())


async def read(chunks: AsyncIterator[Chunk]) -> tuple[str, Completion]:
    """The joined text, and the completion that only the last chunk carries; an error in its place is raised."""
    received = [chunk async for chunk in chunks]
    if (error := received[-1].error) is not None:
        raise error
    completions = [chunk.completion for chunk in received]
    assert completions[:-1] == [None] * (len(received) - 1)
    assert completions[-1] is not None
    return "".join(chunk.text for chunk in received), completions[-1]


def test_answers(replica: Replica) -> None:
    text, completion = run(lambda: read(replica.generate(Request(hand_drawn()))))
    assert text == completion.text == CAPTION


def test_chunks_together_hold_every_token_and_its_logprob(replica: Replica) -> None:
    async def work() -> list[Chunk]:
        return [chunk async for chunk in replica.generate(Request(hand_drawn(), sampling=Sampling(logprobs=True)))]

    chunks = run(work)
    completion = chunks[-1].completion
    assert completion is not None
    assert tuple(token for chunk in chunks for token in chunk.token_ids) == completion.token_ids
    assert tuple(logprob for chunk in chunks for logprob in chunk.logprobs) == completion.logprobs


def rounded(chunk: Chunk) -> Chunk:
    """Without the completion, and without the last digits, which depend on what else is in the batch."""
    return replace(
        chunk,
        completion=None,
        logprobs=tuple(round(one, 3) for one in chunk.logprobs),
        top_logprobs=tuple(
            tuple(replace(top, logprob=round(top.logprob, 3)) for top in step) for step in chunk.top_logprobs
        ),
        choices=tuple(map(rounded, chunk.choices)),
    )


def test_an_answer_that_does_not_stream_is_one_chunk_with_all_that_the_others_have(replica: Replica) -> None:
    async def work(request: Request) -> tuple[Chunk, Chunk]:
        streamed = Chunk.joined([chunk async for chunk in replica.generate(request)])
        return await replica.answer(replace(request, stream=False)), streamed

    request = Request(hand_drawn(), sampling=Sampling(logprobs=True, top_logprobs=2))
    choices = replace(request, n=2, sampling=replace(request.sampling, temperature=1.0, seed=1))
    for asked in (request, replace(request, tasks=(Task("caption"), Task("caption", length="long"))), choices):
        whole, streamed = run(partial(work, asked))
        assert whole.completion is not None
        assert streamed.completion is not None
        assert whole.completion.token_ids == streamed.completion.token_ids
        assert rounded(whole) == rounded(streamed)


def test_an_answer_that_does_not_stream_carries_its_error(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    assert isinstance(run(lambda: replica.answer(Request(b"no image", stream=False))).error, InvalidImage)
    assert caplog.records == []
    replica.__del__()
    chunk = run(lambda: replica.answer(Request(hand_drawn(), stream=False)))
    assert isinstance(chunk.error, EngineFailure)
    assert [record.getMessage() for record in caplog.records] == [f"a request failed: {chunk.error.message}"]


def test_errors_of_the_engine_reach_the_caller(replica: Replica) -> None:
    with pytest.raises(InvalidImage):
        run(lambda: read(replica.generate(Request(b"no image"))))


def test_a_mistake_of_the_client_is_the_last_chunk_and_is_not_logged(
    replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> list[Chunk]:
        requests = (Request(b"no image"), Request(hand_drawn(), task=Task("detect")))
        return [chunk for request in requests async for chunk in replica.generate(request)]

    caplog.clear()
    unreadable, unsupported = run(work)
    assert isinstance(unreadable.error, InvalidImage)
    assert isinstance(unsupported.error, UnsupportedTask)
    assert caplog.records == []


def test_a_failure_of_the_engine_is_the_last_chunk_and_one_line_in_the_log(
    replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> list[Chunk]:
        return [chunk async for chunk in replica.generate(Request(hand_drawn()))]

    replica.__del__()
    caplog.clear()
    [chunk] = run(work)
    assert isinstance(chunk.error, EngineFailure)
    [record] = caplog.records
    assert (record.levelname, record.exc_info) == ("ERROR", None)
    assert record.getMessage() == f"a request failed: {chunk.error.message}"


def test_lines_of_a_replica_are_about_the_request_that_it_was_asked(replica: Replica) -> None:
    async def work(streamed: bool) -> str:
        request = Request(b"no image", stream=streamed, request_id=f"req-{streamed}")
        if streamed:
            assert [chunk async for chunk in replica.generate(request)]
        else:
            await replica.answer(request)
        return REQUEST_ID.get()

    assert [run(partial(work, streamed)) for streamed in (True, False)] == ["req-True", "req-False"]
    assert STAMP in [one for handler in log.handlers for one in handler.filters] or not log.handlers


@pytest.mark.parametrize("stream", [True, False])
def test_a_bug_is_the_last_chunk_and_its_text_which_may_quote_the_request_is_nowhere(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    async def generate(_engine: Engine, request: Request) -> AsyncGenerator[Chunk, None]:
        yield Chunk("a")
        raise KeyError(request.prompt)

    async def complete(_engine: Engine, request: Request) -> Completion:
        raise KeyError(request.prompt)

    async def work() -> Chunk:
        request = Request(hand_drawn(), "xyzzy-prompt", stream=stream)
        if not stream:
            return await replica.answer(request)
        return [chunk async for chunk in replica.generate(request)][-1]

    monkeypatch.setattr(Engine, "generate", generate)
    monkeypatch.setattr(Engine, "complete", complete)
    caplog.clear()
    chunk = run(work)
    assert type(chunk.error) is EngineFailure
    assert "unexpected KeyError" in caplog.text
    assert "in generate" in caplog.text or "in complete" in caplog.text
    assert "xyzzy" not in caplog.text + chunk.error.message


def test_an_engine_that_does_not_start_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_engine: Engine) -> None:
        raise RuntimeError("no threads left")

    def stop(engine: Engine) -> None:
        stopped.append(engine)

    stopped: list[Engine] = []
    monkeypatch.setattr(Engine, "start", fail)
    monkeypatch.setattr(Engine, "stop", stop)
    replica = Replica.__new__(Replica)
    with pytest.raises(RuntimeError):
        Replica.__init__(replica, ModelConfig(checkpoint=str(MINIATURES / "blip-large"), device="cpu"))
    replica.__del__()
    assert replica._engine in stopped


def test_refuses_when_full_and_does_not_log_it(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> list[object]:
        asked = (read(replica.generate(Request(hand_drawn()))) for _ in range(5))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    caplog.clear()
    answers = run(work)
    assert sum(isinstance(answer, Overloaded) for answer in answers) == 2
    assert sum(isinstance(answer, tuple) for answer in answers) == 3
    assert caplog.records == []


def test_closing_early_frees_what_the_request_held() -> None:
    replica = small("florence-2-base")

    async def work() -> None:
        chunks = replica.generate(LONG)
        assert (await anext(chunks)).completion is None
        assert (await replica.stats()).accepted == 1
        await chunks.aclose()
        while (stats := await replica.stats()).accepted or stats.running or stats.used_blocks:
            await asyncio.sleep(0.01)

    run(work)
    replica.__del__()


def test_describes_what_it_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MINIATURES.parent)
    replica = Replica(
        ModelConfig(checkpoint="miniatures/blip-large", device="cpu", engine=EngineConfig(cache_bytes=2**24))
    )
    info = run(replica.describe)
    replica.__del__()
    assert (info.family, info.checkpoint, info.revision) == ("blip", "miniatures/blip-large", None)
    assert (info.dtype, info.device) == ("float32", "cpu")
    assert info.parameters > 1_000_000


def test_is_healthy_until_the_device_breaks(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    run(replica.check_health)
    monkeypatch.setattr(Engine, "healthy", property(lambda _: False))
    with pytest.raises(EngineFailure):
        run(replica.check_health)


def test_a_stopped_replica_refuses(replica: Replica) -> None:
    replica.__del__()
    with pytest.raises(EngineFailure):
        run(lambda: read(replica.generate(Request(hand_drawn()))))


def test_a_missing_checkpoint_is_named() -> None:
    with pytest.raises(CheckpointError, match="miniatures/none"):
        Replica(ModelConfig(checkpoint="miniatures/none"))


# The pace of chunks


async def numbers(*pauses_s: float) -> AsyncGenerator[Chunk, None]:
    """One number after each pause; the last one ends the answer."""
    for index, pause_s in enumerate(pauses_s):
        await asyncio.sleep(pause_s)
        yield Chunk(text=f"{index} ", token_ids=(index,), logprobs=(-float(index),))


async def timed(chunks: AsyncIterator[Chunk]) -> list[tuple[str, float]]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    return [(chunk.text, loop.time() - began) async for chunk in chunks]


def test_first_chunk_is_sent_at_once_and_the_rest_at_intervals() -> None:
    sent = run_clocked(timed(paced(numbers(*[1.0] * 30), 9.75)))
    assert [when for _, when in sent] == [1, 10.75, 20.5, 30]  # the last one comes as soon as the answer ends
    assert [text.split() for text, _ in sent] == [
        [str(index) for index in part] for part in (range(1), range(1, 10), range(10, 20), range(20, 30))
    ]


def test_a_held_chunk_is_sent_when_its_time_comes_though_none_follows() -> None:
    sent = run_clocked(timed(paced(numbers(0, 1, 60), 10)))
    assert sent == [("0 ", 0), ("1 ", 10), ("2 ", 61)]


def test_last_chunk_is_sent_at_once() -> None:
    last = Chunk(" red square", completion=words("a red square"))

    async def source() -> AsyncGenerator[Chunk, None]:
        yield Chunk("a")
        await asyncio.sleep(1)
        yield last
        await asyncio.sleep(60)  # whatever the engine does after the answer

    async def work() -> tuple[Chunk, float]:
        began, chunks = asyncio.get_running_loop().time(), paced(source(), 10)
        await anext(chunks)
        received = await anext(chunks)
        when = asyncio.get_running_loop().time() - began
        await chunks.aclose()
        return received, when

    assert run_clocked(work()) == (last, 1)


def test_reasoning_is_joined_like_text() -> None:
    async def thinking() -> AsyncGenerator[Chunk, None]:
        for piece in ("I ", "see ", "it."):
            yield Chunk(token_ids=(1,), reasoning=piece)
        yield Chunk("A dog", (2,))

    async def work() -> list[Chunk]:
        return [chunk async for chunk in paced(thinking(), 10.0)]

    assert Chunk.joined(run(work)) == Chunk("A dog", (1, 1, 1, 2), reasoning="I see it.")


def test_an_error_comes_after_what_came_before_it() -> None:
    async def failing() -> AsyncGenerator[Chunk, None]:
        yield Chunk(text="a")
        yield Chunk(text="b")
        raise EngineFailure("broken")

    received: list[str] = []

    async def work() -> None:
        async for chunk in paced(failing(), 10.0):
            received.append(chunk.text)  # noqa: PERF401  # what came before the error must be kept

    with pytest.raises(EngineFailure, match="broken"):
        run(work)
    assert "".join(received) == "ab"


def test_closing_closes_the_source() -> None:
    async def work() -> None:
        source = numbers(0, 60)
        chunks = paced(source, 1)
        await anext(chunks)
        await chunks.aclose()
        assert await anext(source, None) is None

    run_clocked(work())


def test_a_replica_closes_the_engines_answer(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    source = numbers(0, 60)
    monkeypatch.setattr(Engine, "generate", lambda _engine, _request: source)

    async def work() -> None:
        chunks = replica.generate(Request(hand_drawn()))
        await anext(chunks)
        await chunks.aclose()
        assert await anext(source, None) is None

    run_clocked(work())


def test_a_replica_outside_ray_has_no_part_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    assert gpu_fraction() is None


@pytest.mark.parametrize(("assigned", "fraction"), [({"CPU": 2.0}, None), ({"GPU": 0.25}, 0.25), ({"GPU": 2.0}, 1.0)])
def test_a_replica_s_part_of_a_gpu_is_what_ray_has_assigned(
    assigned: dict[str, float], fraction: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = SimpleNamespace(
        is_initialized=lambda: True,
        get_runtime_context=lambda: SimpleNamespace(get_assigned_resources=lambda: assigned),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert gpu_fraction() == fraction
