"""Types and ranges of what only chat's body has, and the message for a wrong field."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from router.asgi.validation import validated
from router.chat.schema import ChatBody
from tests.router.world import body
from vlm.errors import InvalidRequest


def refused(request: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        validated(ChatBody, request)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 2**31}, "max_tokens: must be less than 2147483648."),
        ({"messages": [{"role": "tool"}]}, "messages[0].role: must be 'system', 'developer', 'user' or 'assistant'."),
        (
            {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
            "messages[0].content[0]: must be an object with a type of: text, image_url, file.",
        ),
        (
            {"messages": [{"role": "user", "content": ["hello"]}]},
            "messages[0].content[0]: must be an object with a type of: text, image_url, file.",
        ),
    ],
)
def test_a_message_says_what_is_wrong_and_what_is_right(fields: dict[str, Any], message: str) -> None:
    assert refused({**body(), **fields}).message == message


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [0] * 20_000},
        {"messages": [{"role": "user", "content": [0] * 20_000}]},
        {"messages": [{"role": "user", "content": [0] * 64}] * 256},
    ],
    ids=json.dumps,
)
def test_a_long_list_of_bad_items_is_one_error(fields: dict[str, Any]) -> None:
    """pydantic would otherwise keep an error, and a copy of the item, for each."""
    request = {**body(), **fields}
    tracemalloc.start()
    try:
        refused(request)
        assert tracemalloc.get_traced_memory()[1] < 1024**2
    finally:
        tracemalloc.stop()
