"""The JSON of whole answers in chat."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.chat.response import ChatHead, completion_json, usage_json
from router.conversation.answer import ResponseMeta, ResponseOptions, grounding_of
from tests.router.world import BALL, geometry, several, with_reasoning, words
from vlm.types import Usage

HEAD = ChatHead(ResponseMeta("blip-large", "req_1", ignored=("user",), created=1), "fp_1", id="chatcmpl-1")


def test_every_field_of_a_whole_answer() -> None:
    assert completion_json(words(), HEAD, ResponseOptions()) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "blip-large",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "a red square",
                    "refusal": None,
                    "grounding": {
                        "version": "1",
                        "task": "caption",
                        "native_task": "<CAPTION>",
                        "text": "a red square",
                        "reasoning": None,
                        "images": [{"width": 640, "height": 480}],
                        "objects": [],
                        "truncated": False,
                        "below_threshold": 0,
                        "raw": None,
                        "parts": [],
                    },
                },
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": 580,
            "completion_tokens": 3,
            "total_tokens": 583,
            "prompt_tokens_details": {"image_tokens": 577, "text_tokens": 3, "cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "x_gigarouter": {
            "request_id": "req_1",
            "task_resolution": "default",
            "image_cache": "miss",
            "ignored": ["user"],
            "timings": {"prepare_ms": 1.0, "queue_ms": 0.5, "first_token_ms": 4.25, "total_ms": 9.123},
        },
    }


def test_the_reasoning_stands_beside_the_answer() -> None:
    answer = completion_json(with_reasoning(), HEAD, ResponseOptions())
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("A shape, red, of four sides.", "a red square")
    assert message["grounding"]["reasoning"] == message["reasoning_content"]
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}


def test_of_several_answers_the_reasoning_is_that_of_the_first_text() -> None:
    first_text = several(geometry(BALL), with_reasoning(), words("another one"))
    message = completion_json(first_text, HEAD, ResponseOptions())["choices"][0]["message"]
    assert message["reasoning_content"] == message["grounding"]["parts"][1]["reasoning"]
    without_reasoning = completion_json(several(geometry(BALL), words(), with_reasoning()), HEAD, ResponseOptions())
    assert "reasoning_content" not in without_reasoning["choices"][0]["message"]


@pytest.mark.parametrize("include_raw", [False, True])
def test_of_several_tasks_each_has_its_grounding_and_the_first_text_is_the_content(include_raw: bool) -> None:
    options = ResponseOptions(include_raw=include_raw)
    answer = completion_json(several(), HEAD, options)
    message = answer["choices"][0]["message"]
    alone = [grounding_of(part, options) for part in several().parts]
    assert message["content"] == "a red square"
    assert message["grounding"] == {**alone[0], "parts": alone}
    assert [part["task"] for part in message["grounding"]["parts"]] == ["detect", "caption", "caption"]
    assert [part["text"] for part in message["grounding"]["parts"]] == [None, "a red square", "another one"]
    assert [part["parts"] for part in alone] == [[], [], []]
    assert len(answer["choices"]) == 1


def test_every_answer_has_its_own_id() -> None:
    one, two = ChatHead(ResponseMeta("m", "r")), ChatHead(ResponseMeta("m", "r"))
    assert one.id != two.id
    assert one.id.startswith("chatcmpl-")
    assert one.meta.created > 1_700_000_000


def test_every_count_of_tokens_has_its_own_key() -> None:
    usage = Usage(image_tokens=500, text_tokens=30, completion_tokens=9, cached_tokens=400, reasoning_tokens=7)
    assert usage_json(replace(words(), usage=usage), ResponseMeta("m", "r", costs=lambda _: 94_000)) == {
        "prompt_tokens": 530,
        "completion_tokens": 9,
        "total_tokens": 539,
        "prompt_tokens_details": {"image_tokens": 500, "text_tokens": 30, "cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 7},
        "cost": 0.000094,
    }
