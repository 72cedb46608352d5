"""Plain words: what asks for which task, and what reads as the beginning of a caption."""

from __future__ import annotations

import pytest

from vlm.models.plain_words import (
    MAX_CHARS,
    MAX_PREFIX_WORDS,
    OPENINGS,
    RULES,
    asks_for_a_caption,
    begins_a_caption,
    task_of,
)
from vlm.types import Task


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("read the text", Task("ocr")),
        ("What does it say?", Task("ocr")),
        ("what does the small sign say", Task("ocr")),
        ("OCR the full page to markdown.", Task("ocr")),
        ("Convert this page to docling.", Task("ocr")),
        ("Where is the text?", Task("ocr_regions")),
        ("Detect all objects", Task("detect")),
        ("What objects are there?", Task("detect")),
        ("describe in detail", Task("caption")),
        ("Describe this image in a few sentences.", Task("caption")),
        ("Describe what you see.", Task("caption")),
        ("Is anyone at the door?", Task("caption")),
        ("Was ist das?", Task("caption")),
        ("Describe it in great detail", Task("caption", length="long")),
        ("Describe the image in one sentence.", Task("caption", length="short")),
        ("the mediocrity of a detective", Task("caption")),  # within words
    ],
)
def test_words_that_clients_use(text: str, task: Task) -> None:
    assert task_of(text) == task


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.task} {rule.length}")
def test_every_phrase_of_a_rule_asks_for_its_task_in_any_case(rule: object) -> None:
    for one in RULES:
        if one is rule:
            for phrase in one.words:
                assert one.fits(f"Please: {phrase.replace('...', 'all of the').upper()}!"), phrase
                assert one.fits(phrase.replace(" ...", "")), phrase
                assert not one.fits(f"x{phrase.replace(' ...', '')}x"), phrase


def test_a_long_text_is_not_searched_for_words() -> None:
    assert task_of("read the text" + " and so on" * MAX_CHARS) == Task("caption")


@pytest.mark.parametrize(
    "text", ["a photography of", "a picture of", "The word", "two dogs and", " an image of ", "photo of a"]
)
def test_the_beginning_of_a_caption(text: str) -> None:
    assert begins_a_caption(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "What is this?",
        "the dog is what colour?",
        "Describe this image",
        "Describe the image in three sentences. Be concise and accurate.",
        "Beschreibe das Bild",
        "请描述这张图片",
        "caption",
        "a dog.\nWhat breed is it",
        "an image of\na dog",
        "the " * (MAX_PREFIX_WORDS + 1),
    ],
)
def test_anything_else_is_not_one(text: str) -> None:
    assert not begins_a_caption(text)


def test_openings_are_single_words_in_lower_case() -> None:
    assert all(word == word.casefold().strip() and " " not in word for word in OPENINGS)


@pytest.mark.parametrize("text", ["Describe this image.", "Write a caption", "Give me a DESCRIPTION of it"])
def test_words_that_ask_for_a_caption(text: str) -> None:
    assert asks_for_a_caption(text)


@pytest.mark.parametrize("text", ["What colour is the car?", "Is anyone there?", "", "Hello", "describe " * 100])
def test_words_that_ask_for_something_else(text: str) -> None:
    assert not asks_for_a_caption(text)
