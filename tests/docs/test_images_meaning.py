"""The bundled miniatures say what is in the images that people are given to try: all but a few, of every model."""

from __future__ import annotations

import random
from functools import cache

import pytest

from docs.generate.images import png
from docs.generate.sample_images import IMAGES
from tests.oracle import MINIATURES, ask_all
from training.data.sentences import questions
from training.evaluation.metrics import overlap
from vlm.types import Completion, Request, Task

CAPTIONS = {
    "blip-large": ("", None),
    "florence-2-base": ("<CAPTION>", None),
    "kosmos-2": ("<grounding>An image of", None),
    "moondream-2": ("", Task("caption", length="short")),
}
ARTICLES = {"a", "an", "one", "another"}  # whichever repeats no run of three words


@cache
def encoded() -> dict[str, bytes]:
    return {one.name: png(one.render()) for one in IMAGES}


def answers(model: str, *requests: Request) -> list[Completion]:
    return ask_all(MINIATURES / model, requests)


def content_words(text: str) -> list[str]:
    """The words of a caption without its fixed beginning, its full stop, capitals, and the choice of articles."""
    words = text.casefold().removeprefix("an image of ").rstrip(".").split()
    return ["a" if word in ARTICLES else word for word in words]


@pytest.mark.parametrize("model", CAPTIONS)
def test_captions_are_right_to_the_word(model: str) -> None:
    given = answers(model, *(Request(encoded()[one.name], *CAPTIONS[model]) for one in IMAGES))
    wrong = {
        one.name: (answer.text, one.caption)
        for one, answer in zip(IMAGES, given, strict=True)
        if content_words(answer.text) != content_words(one.caption)
    }
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize("model", ["kosmos-2", "moondream-2"])
def test_questions_are_answered(model: str) -> None:
    asked = [(one, question) for one in IMAGES for question in questions(one.scene, random.Random(one.name))]
    given = answers(model, *(Request(encoded()[one.name], question.text) for one, question in asked))
    wrong = [
        (one.name, question.text, answer.text)
        for (one, question), answer in zip(asked, given, strict=True)
        if answer.text.rstrip(".") != question.answer
    ]
    assert len(wrong) <= len(asked) / 10, wrong


def test_shapes_are_where_florence_finds_them() -> None:
    given = answers("florence-2-base", *(Request(encoded()[one.name], "<OD>") for one in IMAGES))
    missed = [
        (one.name, shape.name)
        for one, answer in zip(IMAGES, given, strict=True)
        for shape in one.scene.shapes
        if not any(
            found.label == shape.kind and found.box and overlap(found.box, shape.box) >= 0.7
            for found in answer.grounding.detections
        )
    ]
    assert len(missed) <= 3, missed
