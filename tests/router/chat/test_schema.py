"""Types and ranges of what only chat's body has, and the message for a wrong field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.router.refused import assert_is_one_error, refused
from tests.router.world import body


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
    assert_is_one_error({**body(), **fields})
