"""Server-sent events in OpenAI's order; keep-alive and deadline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.asgi.chunks import sse, whole
from router.asgi.deadline import until, within
from router.chat.events import EventWriter
from router.chat.response import ChatHead, completion_json
from router.conversation.answer import ResponseMeta, ResponseOptions
from tests.clock import CLOCKED
from tests.router.world import BALL, Step, events, geometry, script, several, with_reasoning, words
from vlm.errors import DeadlineExceeded, EngineFailure, Overloaded
from vlm.types import Chunk, Completion

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return CLOCKED


HEAD = ChatHead(ResponseMeta("blip-large", "req_1", created=1), "fp_1", id="chatcmpl-1")


async def play(*steps: Step, pause_s: float = 0.0) -> AsyncGenerator[Chunk, None]:
    for step in steps:
        await asyncio.sleep(pause_s)
        if isinstance(step, Exception):
            raise step
        yield step


async def _arrived(chunk: Chunk) -> Chunk:
    """A first chunk that has arrived already."""
    return chunk


async def stream_text(*steps: Step, options: ResponseOptions = ResponseOptions(), include_usage: bool = False) -> str:
    chunks = play(*steps)
    writer = EventWriter(HEAD, options, include_usage)
    return b"".join([event async for event in sse(_arrived(await anext(chunks)), chunks, writer)]).decode()


def deltas(text: str) -> list[Any]:
    return [choice["delta"] for event in events(text) for choice in event.get("choices", ())]


def joined(text: str) -> str:
    return "".join(delta.get("content", "") for delta in deltas(text))


async def test_the_order_of_events() -> None:
    text = await stream_text(*script(words()))
    assert text.endswith("}\n\ndata: [DONE]\n\n")
    first, second, third, last = events(text)
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "blip-large",
        "system_fingerprint": "fp_1",
    }
    for event in (first, second, third, last):
        assert {name: event[name] for name in head} == head
        assert "usage" not in event
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert second["choices"][0]["delta"] == {"content": "a"}
    assert third["choices"][0]["delta"] == {"content": " red square"}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert set(last["choices"][0]["delta"]) == {"grounding"}
    assert last["x_gigarouter"]["request_id"] == "req_1"


async def test_usage_comes_last_and_alone() -> None:
    *others, last = events(await stream_text(*script(words()), include_usage=True))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 583
    assert [event["usage"] for event in others] == [None] * len(others)


async def test_geometry_alone_is_one_delta_before_the_end() -> None:
    text = await stream_text(Chunk(token_ids=(1,)), Chunk(token_ids=(2,)), Chunk(completion=geometry(BALL)))
    role, content, finish = deltas(text)
    assert role["content"] == ""
    assert json.loads(content["content"])["objects"][0]["label"] == "ball"
    assert finish["grounding"]["objects"][0]["label"] == "ball"


async def test_geometry_alone_streams_no_tokens() -> None:
    text = await stream_text(Chunk("ball<loc_1>", completion=geometry(BALL)))
    assert json.loads(joined(text))["objects"]


@pytest.mark.parametrize("completion", [words(), words("a ball", BALL), geometry(), several(), with_reasoning()])
@pytest.mark.parametrize(
    "options",
    [
        ResponseOptions(),
        ResponseOptions("json"),
        ResponseOptions("grounding"),
        ResponseOptions("raw", include_raw=True),
        ResponseOptions(logprobs=True),
    ],
)
async def test_a_stream_equals_the_whole_answer(completion: Completion, options: ResponseOptions) -> None:
    text = await stream_text(*script(completion), options=options)
    choice = completion_json(completion, HEAD, options)["choices"][0]
    assert joined(text) == choice["message"]["content"]
    reasoning = [delta["reasoning_content"] for delta in deltas(text) if "reasoning_content" in delta]
    assert "".join(reasoning) == choice["message"].get("reasoning_content", "")
    assert [delta["grounding"] for delta in deltas(text) if "grounding" in delta] == [choice["message"]["grounding"]]
    assert [delta["role"] for delta in deltas(text) if "role" in delta] == ["assistant"]
    if options.logprobs:
        choices = [event["choices"][0] for event in events(text)]
        assert [token for one in choices for token in one.get("token_ids", [])] == choice["token_ids"]
        entries = [entry for one in choices if one["logprobs"] for entry in one["logprobs"]["content"]]
        assert entries == choice["logprobs"]["content"]


async def test_the_reasoning_precedes_the_text_even_in_one_chunk() -> None:
    chunk = replace(Chunk.joined(script(with_reasoning())), token_ids=(7,), logprobs=(-1.0,), token_bytes=(b"x",))
    _, reasoning, text, _ = events(await stream_text(chunk, options=ResponseOptions(logprobs=True)))
    assert reasoning["choices"][0]["delta"] == {"reasoning_content": "A shape, red, of four sides."}
    assert text["choices"][0]["delta"] == {"content": "a red square"}
    assert [event["choices"][0].get("token_ids") for event in (reasoning, text)] == [None, [7]]


async def test_tokens_of_the_reasoning_are_sent_with_it() -> None:
    first = Chunk(token_ids=(7,), logprobs=(-1.0,), token_bytes=(b"x",), reasoning="Hm")
    _, reasoning, *_ = events(await stream_text(first, *script(words()), options=ResponseOptions(logprobs=True)))
    choice = reasoning["choices"][0]
    assert (choice["delta"], choice["token_ids"]) == ({"reasoning_content": "Hm"}, [7])
    assert choice["logprobs"]["content"][0]["logprob"] == -1.0


@given(st.lists(st.text(max_size=5), min_size=1, max_size=6))
def test_no_text_is_lost(pieces: list[str]) -> None:
    whole_text = "".join(pieces)
    chunks = [Chunk(piece) for piece in pieces[:-1]] + [Chunk(pieces[-1], completion=words(whole_text))]
    assert joined(asyncio.run(stream_text(*chunks))) == whole_text


async def test_a_late_error_is_the_last_event() -> None:
    text = await stream_text(Chunk("a"), Overloaded("Full."))
    assert events(text)[-1] == {
        "error": {"message": "Full.", "type": "server_error", "param": None, "code": "overloaded"}
    }
    assert "[DONE]" not in text


async def test_an_answer_without_an_end_is_an_error() -> None:
    assert events(await stream_text(Chunk("a")))[-1]["error"]["code"] == "engine_failure"


async def test_nothing_follows_the_end() -> None:
    text = await stream_text(*script(words()), Chunk("more"), RuntimeError("never reached"))
    assert text.endswith("[DONE]\n\n")
    assert "more" not in text


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_within_ends_at_the_deadline() -> None:
    began, chunks = soon(0), play(Chunk("a"), Chunk("b"), pause_s=5)
    timely = within(soon(7), chunks)
    assert (await anext(timely)).text == "a"
    assert soon(0) == began + 5
    with pytest.raises(DeadlineExceeded):
        await anext(timely)
    assert soon(0) == pytest.approx(began + 7)
    assert await anext(chunks, None) is None


async def test_within_closes_chunks_that_wait_to_be_asked_for_more() -> None:
    chunks = play(Chunk("a"), Chunk("b"))
    timely = within(soon(5), chunks)
    await anext(timely)
    await timely.aclose()
    assert await anext(chunks, None) is None


async def test_within_does_not_change_a_quick_answer() -> None:
    assert [chunk async for chunk in within(soon(5), play(*script(words())))] == list(script(words()))


async def test_until() -> None:
    assert await until(soon(5), asyncio.sleep(0, "done")) == "done"
    with pytest.raises(DeadlineExceeded):
        await until(soon(-1), asyncio.sleep(1))


async def test_whole() -> None:
    assert await whole(play(*script(words()))) == words()
    with pytest.raises(EngineFailure):
        await whole(play(Chunk("a")))
    with pytest.raises(Overloaded):
        await whole(play(Chunk("a"), Overloaded("Full.")))


async def test_a_finish_reason_other_than_stop_is_reported() -> None:
    cut = replace(words(), finish_reason="length")
    assert events(await stream_text(*script(cut)))[-1]["choices"][0]["finish_reason"] == "length"
