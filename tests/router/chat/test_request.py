"""What a body of chat is read as."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config import RouterConfig
from router.conversation.request import ConversationRequest
from tests.router.world import IMAGE, body, image_part, read_chat, text_part, user
from vlm.errors import InvalidRequest, VlmError
from vlm.types import Request


def read(request: dict[str, Any]) -> ConversationRequest:
    return read_chat(json.dumps(request).encode(), RouterConfig())


def test_text_parts_of_one_message_are_lines() -> None:
    request = body(messages=[user(text_part("one"), image_part(), text_part("two"))])
    assert read(request).request.prompt == "one\ntwo"


def test_the_last_message_of_a_conversation_counts_and_the_rest_is_reported() -> None:
    chat = read(
        body(
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [text_part("Be kind.")]},
                user(image_part(), text_part("What is it?")),
                {"role": "assistant", "content": [text_part("A square.")]},
                {"role": "assistant", "content": None, "tool_calls": []},
                {"role": "user", "content": "<OD>"},
            ]
        )
    )
    assert chat.request == Request(IMAGE, "<OD>", stream=False)
    assert chat.ignored == ("messages[0]", "messages[1]", "messages[2]", "messages[3]", "messages[4]")
    assert (chat.image_params[0], chat.prompt_param) == ("messages[2].content[0].image_url.url", "messages[5].content")


def test_other_spellings_of_beams_are_reported_as_unknown() -> None:
    assert read(body(use_beam_search=True, best_of=3)).ignored == ("use_beam_search", "best_of")


def test_max_completion_tokens_takes_precedence() -> None:
    assert read(body(max_completion_tokens=3)).request.sampling.max_tokens == 3
    assert read(body(max_completion_tokens=3, max_tokens=9)).request.sampling.max_tokens == 3


def test_null_means_not_given() -> None:
    names = ("temperature", "stop", "seed", "task", "response_format", "stream", "stream_options", "tools", "n", "foo")
    assert read({**body(), **dict.fromkeys(names)}).request == Request(IMAGE, stream=False)
    assert read({**body(), **dict.fromkeys(names)}).ignored == ()


def test_stream_options() -> None:
    assert read(body(stream=True)).stream
    assert read(body(stream=True, stream_options={"include_usage": True})).include_usage
    assert not read(body(stream=True, stream_options={"include_obfuscation": False})).include_usage


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
field_names = st.sampled_from(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "stop",
        "task",
        "tasks",
        "response_format",
        "n",
        "seed",
        "num_beams",
        "logit_bias",
        "top_k",
    ]
)


@given(st.dictionaries(field_names, json_values, max_size=4))
def test_any_fields_are_read_or_refused_with_our_error(fields: dict[str, Any]) -> None:
    with contextlib.suppress(VlmError):
        assert read({**body(), **fields}).request.image == IMAGE


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=5), json_values)
def test_any_message_is_read_or_refused_with_our_error(roles: list[str], content: object) -> None:
    messages = [*({"role": role, "content": content} for role in roles), user(image_part())]
    with contextlib.suppress(VlmError):
        assert read(body(messages=messages)).request.image == IMAGE


def test_true_is_not_one() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body(n=True))
    assert caught.value.param == "n"
