"""The prompt among a message's parts, as chat interfaces, frameworks and pipelines send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config import RouterConfig
from router.conversation.prompt import Prompt, has_data_url, read_prompt
from router.conversation.request import ConversationRequest
from tests.router.clients import ATTACHED, docling, home_assistant, litellm, open_webui, open_webui_later
from tests.router.world import URL, body, image_part, read_chat, text_part, user
from vlm.errors import InvalidRequest


def read(request: dict[str, Any]) -> ConversationRequest:
    return read_chat(json.dumps(request).encode(), RouterConfig())


def prompt(*parts: str) -> Prompt:
    return read_prompt(list(enumerate(parts)))


@pytest.mark.parametrize("native", ["<OD>", " <OCR_WITH_REGION>\n", "<CAPTION_TO_PHRASE_GROUNDING> a green car"])
@pytest.mark.parametrize("before", [(), (ATTACHED,), ("Image 1:",), ("What is it?", ATTACHED)])
@pytest.mark.parametrize("after", [(), ("and be brief",)])
def test_a_part_that_is_a_native_prompt_wins(native: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    others = tuple(at for at in range(len(before) + 1 + len(after)) if at != len(before))
    assert prompt(*before, native, *after) == Prompt(native, True, others)


def test_a_list_of_files_is_no_part_of_the_prompt() -> None:
    assert prompt(ATTACHED, "What is it?") == Prompt("What is it?", False, (0,))
    assert prompt(f"{ATTACHED}What is it?") == Prompt("What is it?", False, (0,))
    assert prompt(f"{ATTACHED}<OD>") == Prompt("<OD>", True, (0,))
    assert prompt(ATTACHED) == Prompt("", False, (0,))
    quoted = f"What does {ATTACHED.strip()} mean?"
    assert prompt(quoted) == Prompt(quoted, False)


def test_the_number_of_an_image_is_no_part_of_the_prompt() -> None:
    assert prompt("Image 1:", "What is it?") == Prompt("What is it?", False, (0,))
    assert prompt("Image 1 is older.") == Prompt("Image 1 is older.", False)


def test_two_native_prompts_the_first_counts() -> None:
    assert prompt("<OD>", "<OCR>") == Prompt("<OD>", True, (1,))


def test_a_token_with_company_in_its_part_is_left_to_the_model() -> None:
    assert prompt("<OD> and more", "please") == Prompt("<OD> and more\nplease", False)


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="<0123456789"), min_size=1), max_size=4))
def test_ordinary_parts_are_lines(parts: list[str]) -> None:
    assert prompt(*parts) == Prompt("\n".join(parts), False)


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        (open_webui("<OD>"), "<OD>"),
        (open_webui("What is this?"), "What is this?"),
        (open_webui_later("Which colour is it?"), "Which colour is it?"),
        (open_webui_later("<OD>"), "<OD>"),
        (litellm(), "<OD>"),
        (docling("Describe this image in a few sentences."), "Describe this image in a few sentences."),
        (home_assistant("Is anyone there?"), "Is anyone there?"),
    ],
)
def test_what_clients_send_becomes_what_their_users_wrote(request_body: dict[str, Any], expected: str) -> None:
    assert read(request_body).request.prompt == expected


def test_parts_without_use_are_reported_at_their_places() -> None:
    assert read(open_webui("<OD>", "be brief")).ignored[-2:] == ("messages[1].content[0]", "messages[1].content[2]")
    assert read(body(messages=[user(text_part("a")), {"role": "user", "content": f"{ATTACHED}b"}])).ignored == (
        "messages[0]",
        "messages[1].content",
    )


@pytest.mark.parametrize(
    "text",
    [
        URL,
        f"What is this? {URL}",
        f"![a square]({URL}) What is it?",
        URL.replace("data:", "DATA:"),
        "a" * 20_000 + URL + "b",
    ],
    ids=["alone", "in words", "in Markdown", "capitals", "in a long text"],
)
def test_an_image_within_the_text_is_refused(text: str) -> None:
    for content in (text, [text_part(text), image_part()]):
        with pytest.raises(InvalidRequest, match="Send the image as a part of its own") as caught:
            read(body(messages=[{"role": "user", "content": content}]))
        assert (caught.value.param, caught.value.code) == ("messages[0].content", "invalid_value")


def test_an_image_within_the_text_is_found_before_the_text_is_too_long() -> None:
    with pytest.raises(InvalidRequest, match="a part of its own"):
        read(body(messages=[{"role": "user", "content": "data:image/png;base64," + "A" * 100_000}]))


@pytest.mark.parametrize(
    "text",
    [
        "data:", "The data: a table.", "What does data:image/png;base64,... mean?",
        "url(data:image/gif;base64,R0lGODlhAQABAAAAACw=)",
        "It begins with data:image/png;base64,iVBORw0KGgo", ";base64," + "A" * 100, ";base64," * 5000 + "data:",
    ],
)  # fmt: skip
def test_a_text_about_data_urls_is_a_text(text: str) -> None:
    assert not has_data_url(text)
