"""Conversations: what of them is the request, and that the rest cannot break it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.chat.request import SPELLING
from router.config import RouterConfig
from router.conversation.history import Turn, read_turn, without_history
from router.conversation.request import ConversationRequest
from tests.images import plain
from tests.router.clients import OTHER_URL, langchain_agent, open_webui_later
from tests.router.world import IMAGE, URL, body, image_part, read_chat, text_part, user
from vlm.errors import InvalidRequest

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def read(request: dict[str, Any]) -> ConversationRequest:
    return read_chat(json.dumps({**request, "tools": None}).encode(), RouterConfig())


def said(role: str, content: object, **more: object) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_a_later_question_is_about_the_image_that_was_sent_before() -> None:
    chat = read(open_webui_later("Which colour is it?"))
    assert chat.request.image == IMAGE
    assert chat.request.prompt == "Which colour is it?"
    assert chat.image_params[0] == "messages[1].content[2].image_url.url"
    assert chat.prompt_param == "messages[5].content"
    assert chat.ignored == (*(f"messages[{at}]" for at in range(5)), "messages[5].content")


def test_the_newest_image_counts_and_older_ones_are_not_even_loaded() -> None:
    chat = read(langchain_agent())
    assert chat.request.image == plain(320, 200)
    assert chat.request.prompt == "And this?"
    assert chat.ignored[-4:] == ("messages[0]", "messages[1]", "messages[2]", "messages[3]")


def test_the_same_image_sent_again_with_each_question() -> None:
    turns = [user(image_part(), text_part(f"{number}")) for number in range(40)]
    chat = read(body(messages=turns))
    assert (chat.request.image, chat.request.prompt) == (IMAGE, "39")
    assert chat.ignored == (*(f"messages[{at}]" for at in range(32)), "and 7 more")


OLDER = [
    said("tool", "42", tool_call_id="call_1"),
    said("function", {"result": 1}),
    said("assistant", [{"type": "refusal", "refusal": "No."}]),
    said("assistant", None, tool_calls=[{"id": "call_1"}]),
    said("assistant", [image_part()]),
    said("system", [image_part()]),
    said("critic", ["a", 1, None]),
    said("user", [{"type": "input_audio", "input_audio": {}}, {"type": "text"}]),
    said("user", [image_part("file:///etc/passwd")]),
    said("user", 7),
    "hello",
    None,
    {},
]


@pytest.mark.parametrize("older", OLDER)
@pytest.mark.parametrize("after", [False, True])
def test_an_older_message_is_not_validated(older: Any, *, after: bool) -> None:
    is_user = isinstance(older, dict) and older.get("role") == "user"
    messages = [user(image_part(), text_part("<OD>")), older] if after and not is_user else [older, user(image_part())]
    chat = read(body(messages=messages))
    assert chat.request.image == IMAGE
    assert chat.ignored == (f"messages[{messages.index(older)}]",)


@given(st.lists(json_values, max_size=4), st.lists(json_values, max_size=4))
def test_whatever_stands_around_the_question_it_is_read(before: list[Any], after: list[Any]) -> None:
    chat = read(body(messages=[*before, user(image_part(), text_part("<OD>")), *after]))
    assert (chat.request.image, chat.request.prompt) == (IMAGE, "<OD>")


def test_an_image_of_the_assistant_is_none_of_the_request() -> None:
    chat = read(body(messages=[said("assistant", [image_part()]), said("user", "What is it?")]))
    assert chat.request.image is None


def test_the_text_beside_an_older_image_is_reported_as_unused() -> None:
    with_text = [user(image_part(), text_part("one")), said("user", "two")]
    assert read(body(messages=with_text)).ignored == ("messages[0]",)
    assert read(body(messages=[user(image_part()), said("user", "two")])).ignored == ()


def test_what_is_read_is_validated_at_its_place() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body(messages=[{}, user({"type": "image_url"}), said("user", "two")]))
    assert (caught.value.param, caught.value.code) == ("messages[1].content[0].image_url", "missing_required_parameter")
    with pytest.raises(InvalidRequest) as caught:
        read(body(messages=[{}, user(image_part()), said("user", [{"type": "text", "text": 1}])]))
    assert (caught.value.param, caught.value.code) == ("messages[2].content[0].text", "invalid_type")


def test_without_a_user_message_there_is_nothing_to_read() -> None:
    assert read_turn({"messages": [said("system", "hi")]}, SPELLING) is None
    assert read_turn({"messages": "hi"}, SPELLING) is None
    assert read_turn({}, SPELLING) is None


def test_the_positions_of_messages_stay() -> None:
    raw = {"messages": [said("tool", 1), user(image_part(URL)), said("tool", 2), said("user", "hi")], "model": "m"}
    turn = read_turn(raw, SPELLING)
    assert turn == Turn(text=3, images=1, spelling=SPELLING)
    trimmed = without_history(raw, turn)
    assert [one is raw["messages"][at] for at, one in enumerate(trimmed["messages"])] == [False, True, False, True]
    assert OTHER_URL != URL
