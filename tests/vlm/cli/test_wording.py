"""Messages about request fields name the options of the command line instead."""

from __future__ import annotations

import pytest

from vlm.cli.wording import EXAMPLES, in_shell_words, option, options_of
from vlm.errors import EngineFailure, InvalidRequest


@pytest.mark.parametrize(
    ("message", "param", "expected"),
    [
        ("It failed.", None, "It failed."),
        ("It failed.", "unknown", "It failed."),
        ("temperature must be from 0 to 2.", "temperature", "--temperature must be from 0 to 2."),
        ("max_tokens must be at least 1.", "max_tokens", "--max-tokens must be at least 1."),
        ("The task needs labels; send task.labels.", "task.labels", "The task needs labels; send --label."),
        ("The prompt is too long.", "prompt", "The prompt is too long. (--prompt TEXT)"),
        ("Leave num_beams out.", "num_beams", "Leave --beams out."),
        ("task.nothing and my_top_p are no options.", None, "task.nothing and my_top_p are no options."),
    ],
)
def test_a_message_is_put_into_the_words_of_the_shell(message: str, param: str | None, expected: str) -> None:
    assert in_shell_words(InvalidRequest(message, param)) == expected


def test_a_message_that_names_its_option_already_is_left_alone() -> None:
    message = "--region reaches outside the image"
    assert in_shell_words(EngineFailure(message, "task.region")) == message


def test_every_field_has_an_option_and_every_other_name_stands_for_itself() -> None:
    assert all(option(field).startswith("--") and " " not in option(field) for field in EXAMPLES)
    assert option("image") == "image"
    assert options_of(["task.length", "prompt", "image"]) == "--length, --prompt, image"
