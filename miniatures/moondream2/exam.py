"""Moondream 2's examination: captions, questions, objects, points, and counting by pointing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from miniatures import sentences
from miniatures.moondream2.tasks import looked_for
from miniatures.scenes import Scene, Shape
from miniatures.scores import Answer, Item, Labelled, Mark, Row, exact, found, within
from vlm.types import Request, Task

_QUESTIONS = ("how many", "what colour", "what shape", "what relation", "is there", "which word")
ROWS = (
    Row("short caption, exact", 0.85),
    Row("normal caption, exact"),
    Row("questions, exact", 0.9),
    *(Row(f"- {kind}") for kind in _QUESTIONS),
    Row("detection, F1", 0.9),
    Row("points within shapes, F1", 0.9),
    Row("what is this, exact"),
    Row("counting aloud, exact"),
    Row("counting aloud, points within, F1"),
)


def items(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:
    """By the named tasks; words alone are a question."""
    captions = {"short": sentences.plain(sentences.caption(scene)), "normal": sentences.detailed(scene)}
    yield Item(ROWS[0].name, Request(image, task=Task("caption", length="short")), _exactly(captions["short"]))
    yield Item(ROWS[1].name, Request(image, task=Task("caption", length="normal")), _exactly(captions["normal"]))
    for question in sentences.questions(scene, rng):
        for row in (ROWS[2].name, f"- {question.kind}"):
            yield Item(row, Request(image, question.text), _exactly(question.answer))
    label, shapes = looked_for(scene, rng)
    yield Item("detection, F1", Request(image, task=Task("detect", labels=(label,))), _located(shapes))
    yield Item("points within shapes, F1", Request(image, task=Task("point", labels=(label,))), _pointed(shapes))
    if scene.shapes:
        yield from _about(scene, image, rng)


def _about(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:
    shape = rng.choice(scene.shapes)
    this = Task("query", text="What is this?", references=(shape.box,))
    yield Item("what is this, exact", Request(image, task=this), _exactly(sentences.phrase(shape)))
    aloud = Request(image, task=Task("query", text="How many shapes are there?", reasoning=True))
    yield Item("counting aloud, exact", aloud, _exactly(sentences.NUMBERS[len(scene.shapes)]))
    yield Item("counting aloud, points within, F1", aloud, _pointed(scene.shapes))


def _exactly(wanted: str) -> Callable[[Answer], Mark]:
    return lambda answer: exact(answer.text, wanted)


def _located(shapes: Sequence[Shape]) -> Callable[[Answer], Mark]:
    wanted: list[Labelled] = [("", shape.box) for shape in shapes]
    return lambda answer: found([("", one.box) for one in answer.detections if one.box], wanted)


def _pointed(shapes: Sequence[Shape]) -> Callable[[Answer], Mark]:
    outlines = [shape.polygon for shape in shapes]
    return lambda answer: within([one.point for one in answer.detections if one.point], outlines)
