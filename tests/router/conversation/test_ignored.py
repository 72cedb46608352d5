"""Fields and messages without effect are reported, so many of them as an answer can hold, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.config import RouterConfig
from router.conversation.ignored import IMPOSSIBLE
from router.conversation.request import ConversationRequest
from tests.router.world import body, image_part, read_chat, text_part, user
from vlm.errors import InvalidRequest


def read(request: dict[str, Any]) -> ConversationRequest:
    return read_chat(json.dumps(request).encode(), RouterConfig())


def test_unknown_fields_are_reported() -> None:
    assert read(body(user="me", store=False, bonus=1)).ignored == ("user", "store", "bonus")


def test_the_report_of_unknown_fields_is_bounded() -> None:
    ignored = read({**body(), **{f"{'x' * 200}{index}": 1 for index in range(100)}}).ignored
    assert (len(ignored), ignored[-1]) == (33, "and 68 more")
    assert max(map(len, ignored)) == 128


def test_only_some_of_the_unread_messages_are_reported() -> None:
    messages = [user(text_part("earlier")) for _ in range(100)]
    listed = tuple(f"messages[{at}]" for at in range(32))
    assert read(body(messages=[*messages, user(image_part())])).ignored == (*listed, "and 68 more")


@pytest.mark.parametrize("name", sorted(IMPOSSIBLE))
def test_unsupported_fields_can_be_dropped(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body(**{name: "surely not"}))
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")
    chat = read(body(drop_params=True, **{name: "surely not"}))
    assert chat.ignored == (name,)


@pytest.mark.parametrize("name", [name for name, harmless in IMPOSSIBLE.items() if harmless])
def test_unsupported_fields_may_have_their_neutral_value(name: str) -> None:
    for harmless in IMPOSSIBLE[name]:
        assert read({**body(), name: harmless}).ignored == ()
