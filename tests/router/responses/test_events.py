"""The events of a streamed response: their order, their numbers, and that together they are the whole answer."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.asgi.chunks import sse
from router.conversation.answer import ResponseOptions
from router.responses.events import EventWriter
from router.responses.response import ResponseHead, response_json
from tests.router.responses.clients import asked, read
from tests.router.world import BALL, Step, geometry, script, several, with_reasoning, words
from vlm.errors import EngineFailure, InvalidImage, InvalidRequest, Overloaded
from vlm.types import Chunk, Completion, TopLogprob

Json = dict[str, Any]

HEAD = ResponseHead(read(asked()).asked.meta("req_1"), {"store": False})
IN_SUMMARY = replace(HEAD, in_summary=True)


async def play(*steps: Step) -> AsyncGenerator[Chunk, None]:
    for step in steps:
        if isinstance(step, Exception):
            raise step
        yield step


async def stream(*steps: Step, options: ResponseOptions = ResponseOptions(), head: ResponseHead = HEAD) -> str:
    chunks = play(*steps)
    first = asyncio.ensure_future(anext(chunks, None))
    return b"".join([event async for event in sse(first, chunks, EventWriter(head, options))]).decode()


def events(*steps: Step, options: ResponseOptions = ResponseOptions(), head: ResponseHead = HEAD) -> list[Json]:
    """Every event, checked for what holds of each alone."""
    read = []
    for number, block in enumerate(asyncio.run(stream(*steps, options=options, head=head)).rstrip("\n").split("\n\n")):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        read.append(event)
    return read


def kinds(found: list[Json]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in found]


def ended(response: Json) -> Json:
    """A whole answer without the second in which it was made."""
    return {**response, "completed_at": None}


def item(part: str, text: str, pieces: int) -> list[str]:
    """The kinds of the events of one item."""
    deltas = [f"{text}.delta"] * pieces
    return ["output_item.added", f"{part}.added", *deltas, f"{text}.done", f"{part}.done", "output_item.done"]


BEGIN, END = ["created", "in_progress"], ["completed"]
MESSAGE = item("content_part", "output_text", 2)


def test_the_order_of_events() -> None:
    assert kinds(events(*script(words()))) == [*BEGIN, *MESSAGE, *END]


def test_the_reasoning_comes_first() -> None:
    steps = script(with_reasoning())
    assert kinds(events(*steps)) == [*BEGIN, *item("content_part", "reasoning_text", 3), *MESSAGE, *END]


def test_the_reasoning_is_a_summary_where_one_is_wanted() -> None:
    found = events(*script(with_reasoning()), head=IN_SUMMARY)
    summary = item("reasoning_summary_part", "reasoning_summary_text", 3)
    assert kinds(found) == [*BEGIN, *summary, *MESSAGE, *END]
    assert {event["summary_index"] for event in found if "summary" in event["type"]} == {0}
    reasoning = found[-1]["response"]["output"][0]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "A shape, red, of four sides."}]
    assert reasoning["content"] == []


def test_the_first_event_has_the_request_and_no_answer() -> None:
    created, in_progress, *_ = events(*script(words()))
    assert created["response"] == in_progress["response"] == HEAD.json("in_progress")
    assert created["response"]["output"] == []


def test_json_comes_in_one_piece() -> None:
    found = events(Chunk(token_ids=(1,)), Chunk(token_ids=(2,)), Chunk(completion=geometry(BALL)))
    [delta] = [event for event in found if event["type"] == "response.output_text.delta"]
    assert json.loads(delta["delta"])["objects"][0]["label"] == "ball"


def test_an_answer_that_is_cut_off_is_incomplete() -> None:
    *_, done, last = events(*script(replace(words(), finish_reason="length")))
    assert (done["item"]["status"], last["type"]) == ("incomplete", "response.incomplete")
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_reasoning_without_an_answer() -> None:
    cut = replace(with_reasoning("Hm"), text="", finish_reason="length")
    found = events(Chunk(reasoning="H"), Chunk(reasoning="m"), Chunk(completion=cut))
    empty = item("content_part", "output_text", 0)
    assert kinds(found) == [*BEGIN, *item("content_part", "reasoning_text", 2), *empty, "incomplete"]


COMPLETIONS = [words(), words("a ball", BALL), words(""), geometry(), several(), with_reasoning(), with_reasoning("")]
OPTIONS = [
    ResponseOptions(),
    ResponseOptions("json"),
    ResponseOptions("grounding"),
    ResponseOptions("text"),
    ResponseOptions("raw", include_raw=True),
    ResponseOptions(logprobs=True),
    ResponseOptions("json", logprobs=True),
    ResponseOptions(grounding_format="qwen"),
]


def check_stream(
    found: list[Json], completion: Completion, options: ResponseOptions, head: ResponseHead = HEAD
) -> None:
    """Hold a stream against the whole answer: its last state, and each item that it built up."""
    expected = response_json(completion, head, options)
    assert ended(found[-1]["response"]) == ended(expected)
    assert kinds(found)[:2] == BEGIN
    grown: dict[int, str] = defaultdict(str)
    logprobs: list[Json] = []
    for event in found:
        if event["type"].endswith("_text.delta"):
            grown[event["output_index"]] += event["delta"]
            logprobs += event.get("logprobs", ())
    for index, whole in enumerate(expected["output"]):
        [part] = whole["content"] or whole["summary"]
        own = [event for event in found if event.get("output_index") == index]
        assert grown[index] == part["text"]
        assert {event["item_id"] for event in own if "item_id" in event} == {whole["id"]}
        assert [event["item"] for event in own if event["type"].endswith("item.done")] == [whole]
        assert [event["part"] for event in own if event["type"].endswith("part.done")] == [part]
        assert [event["text"] for event in own if event["type"].endswith("text.done")] == [part["text"]]
    assert logprobs == expected["output"][-1]["content"][0]["logprobs"]


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("head", [HEAD, IN_SUMMARY])
def test_a_stream_equals_the_whole_answer(completion: Completion, options: ResponseOptions, head: ResponseHead) -> None:
    check_stream(events(*script(completion), options=options, head=head), completion, options, head)


@pytest.mark.parametrize("completion", COMPLETIONS)
def test_an_answer_in_one_chunk(completion: Completion) -> None:
    check_stream(events(Chunk(completion=completion)), completion, ResponseOptions())
    check_stream(events(Chunk.joined(script(completion))), completion, ResponseOptions())


pieces = st.lists(st.text(max_size=5), max_size=6)


@given(pieces, pieces, st.sampled_from(OPTIONS), st.booleans())
def test_nothing_is_lost_and_the_order_holds(
    reasoning: list[str], text: list[str], options: ResponseOptions, with_end: bool
) -> None:
    answer = replace(with_reasoning("".join(reasoning)), text="".join(text), token_ids=(), logprobs=(), token_bytes=())
    answer = replace(answer, grounding=replace(answer.grounding, text=answer.text))
    steps = [*(Chunk(reasoning=piece) for piece in reasoning), *(Chunk(piece) for piece in text)]
    last = replace(steps.pop(), completion=answer) if with_end and steps else Chunk(completion=answer)
    check_stream(events(*steps, last, options=options), answer, options)


def test_tokens_without_text_report_with_the_next_text() -> None:
    parts = ("☃".encode()[:1], "☃".encode()[1:], b"</s>")
    step = (TopLogprob(11, -0.5, b"x"),)
    answer = replace(words("☃"), token_bytes=parts, top_logprobs=(step,) * 3)
    found = events(*script(replace(answer, text=" ☃")), options=ResponseOptions(logprobs=True))
    deltas = [event for event in found if event["type"] == "response.output_text.delta"]
    assert [(event["delta"], len(event["logprobs"])) for event in deltas] == [(" ☃", 2), ("", 1)]


# Errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Overloaded("Full."), "server_error"),
        (EngineFailure("Broken."), "server_error"),
        (InvalidRequest("No.", "task", "invalid_value"), "invalid_prompt"),
        (InvalidImage("No.", "input[0].content[0].image_url", "image_too_large"), "image_too_large"),
        (InvalidImage("No.", None, "ours_alone"), "invalid_image"),
        (InvalidImage("No."), "invalid_image"),
    ],
)
@pytest.mark.parametrize("before", [[], [Chunk("a")]])
def test_an_error_is_a_failed_response_and_then_an_error_that_clients_raise(
    error: Exception, code: str, before: list[Chunk]
) -> None:
    *_, failed, last = events(*before, error)
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["code"] == code
    assert last["type"] == "error"
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert {name: last[name] for name in ("message", "param", "code")}.items() <= last["error"].items()


def test_an_answer_without_an_end_has_failed() -> None:
    assert events(Chunk("a"))[-1]["code"] == "engine_failure"


def test_nothing_follows_the_end() -> None:
    assert kinds(events(*script(words()), Chunk("more"), RuntimeError("never reached")))[-1] == "completed"
