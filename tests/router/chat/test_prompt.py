"""The prompt among a message's parts, as chat interfaces, frameworks and pipelines send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.chat.prompt import Prompt, read_prompt
from router.chat.request import Chat
from router.config import RouterConfig
from tests.router.clients import ATTACHED, docling, home_assistant, litellm, open_webui, open_webui_later
from tests.router.world import body, read_chat, text_part, user


def read(request: dict[str, Any]) -> Chat:
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
