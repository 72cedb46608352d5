"""Several choices as OpenAI's JSON and events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.chat.events import EventWriter
from router.chat.response import ChatHead, completion_json
from router.conversation.answer import ResponseMeta, ResponseOptions
from tests.router.world import BALL, body, chosen_script, events, geometry, of_choices, post, with_reasoning, words
from tests.router.world import FakeBackend as Backend
from vlm.types import Chunk, Completion

pytestmark = pytest.mark.anyio

HEAD = ChatHead(ResponseMeta("blip-large", "req_1", created=1), id="chatcmpl-1")
SQUARE, STAR = words("a red square"), words("a star")


def written(completion: Completion, options: ResponseOptions = ResponseOptions(), *, joined: bool = False) -> Any:
    """The events of a streamed answer; ``joined``: as a replica sends it whose chunks come in quick succession."""
    writer = EventWriter(HEAD, options, include_usage=True, n=len(completion.choices))
    chunks = chosen_script(completion)
    sent = [Chunk.joined(chunks)] if joined else chunks
    text = writer.opening() + b"".join(event for chunk in sent for event in writer.events(chunk))
    assert text.endswith(b"data: [DONE]\n\n")
    return events(text.decode())


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        of_choices(SQUARE, STAR),
        of_choices(geometry(BALL), geometry()),
        of_choices(with_reasoning(), with_reasoning("So")),
    ],
)
@pytest.mark.parametrize("options", [ResponseOptions(), ResponseOptions("grounding"), ResponseOptions(logprobs=True)])
def test_the_events_of_each_choice_make_its_whole_answer(
    answer: Completion, options: ResponseOptions, joined: bool
) -> None:
    whole = completion_json(answer, HEAD, options)
    *sent, usage = written(answer, options, joined=joined)
    assert [(one["choices"][0]["index"], one["choices"][0]["delta"].get("role")) for one in sent[:2]] == [
        (0, "assistant"),
        (1, "assistant"),
    ]
    for expected in whole["choices"]:
        mine = [one["choices"][0] for one in sent if one["choices"][0]["index"] == expected["index"]]
        message = expected["message"]
        assert "".join(one["delta"].get("content", "") for one in mine) == message["content"]
        reasoning = "".join(one["delta"].get("reasoning_content", "") for one in mine)
        assert reasoning == message.get("reasoning_content", "")
        assert [one["delta"]["grounding"] for one in mine if "grounding" in one["delta"]] == [message["grounding"]]
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [expected["finish_reason"]]
        assert sum("role" in one["delta"] for one in mine) == 1
        if options.logprobs:
            entries = [entry for one in mine if one["logprobs"] for entry in one["logprobs"]["content"]]
            assert entries == expected["logprobs"]["content"]
    assert usage["usage"] == whole["usage"]


def test_finish_reasons_come_in_order_and_our_own_fields_once() -> None:
    sent = written(of_choices(SQUARE, STAR, SQUARE))
    ends = [one for one in sent if one["choices"] and one["choices"][0]["finish_reason"]]
    assert [one["choices"][0]["index"] for one in ends] == [0, 1, 2]
    assert ["x_gigarouter" in one for one in sent if one["choices"]][-3:] == [False, False, True]


async def test_the_endpoint_answers_with_all_choices() -> None:
    backend = Backend(chosen_script(of_choices(SQUARE, STAR)))
    answer = (await post(backend, body(n=2))).json()
    assert [(one["index"], one["message"]["content"]) for one in answer["choices"]] == [
        (0, "a red square"),
        (1, "a star"),
    ]
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["usage"]["prompt_tokens"] == 580
    [(_, request)] = backend.asked
    assert request.n == 2
    streamed = events((await post(backend, body(n=2, stream=True))).text)
    assert [json.dumps(one["choices"][0]["index"]) for one in streamed[:2]] == ["0", "1"]
