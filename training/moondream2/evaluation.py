"""Moondream 2's examination: captions, questions, objects, points, and counting by pointing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from training.data import sentences
from training.data.scenes import Scene, Shape
from training.evaluation.metrics import Answer, Item, Labelled, Mark, Row, exactly, found, within
from training.moondream2.tasks import looked_for
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
    yield Item(Request(image, task=Task("caption", length="short")), {ROWS[0].name: exactly(captions["short"])})
    yield Item(Request(image, task=Task("caption", length="normal")), {ROWS[1].name: exactly(captions["normal"])})
    for question in sentences.questions(scene, rng):
        right = exactly(question.answer)
        yield Item(Request(image, question.text), {ROWS[2].name: right, f"- {question.kind}": right})
    label, shapes = looked_for(scene, rng)
    yield Item(Request(image, task=Task("detect", labels=(label,))), {"detection, F1": _located(shapes)})
    yield Item(Request(image, task=Task("point", labels=(label,))), {"points within shapes, F1": _pointed(shapes)})
    if scene.shapes:
        yield from _about(scene, image, rng)


def _about(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:
    shape = rng.choice(scene.shapes)
    this = Task("query", text="What is this?", references=(shape.box,))
    yield Item(Request(image, task=this), {"what is this, exact": exactly(sentences.phrase(shape))})
    aloud = Request(image, task=Task("query", text="How many shapes are there?", reasoning=True))
    count = exactly(sentences.NUMBERS[len(scene.shapes)])
    pointed = _pointed(scene.shapes)
    yield Item(aloud, {"counting aloud, exact": count, "counting aloud, points within, F1": pointed})


def _located(shapes: Sequence[Shape]) -> Callable[[Answer], Mark]:
    wanted: list[Labelled] = [("", shape.box) for shape in shapes]
    return lambda answer: found([("", one.box) for one in answer.detections if one.box], wanted)


def _pointed(shapes: Sequence[Shape]) -> Callable[[Answer], Mark]:
    outlines = [shape.polygon for shape in shapes]
    return lambda answer: within([one.point for one in answer.detections if one.point], outlines)
