"""Moondream 2's evaluation: captions, questions, boxes, points, and counting with grounded reasoning."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from training.data import sentences
from training.data.scenes import Scene, Shape
from training.evaluation.metrics import (
    Answer,
    Item,
    LabelledBox,
    Row,
    Score,
    Scorer,
    box_f1,
    exact_text,
    overlap,
    point_f1,
)
from training.moondream2.tasks import sample_label
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
    Row("stacked shapes told apart, exact", 0.9),
)


def items(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:
    """Requests by named tasks; questions as a prompt without a task."""
    captions = {"short": sentences.plain(sentences.caption(scene)), "normal": sentences.detailed(scene)}
    yield Item(Request(image, task=Task("caption", length="short")), {ROWS[0].name: exact_text(captions["short"])})
    yield Item(Request(image, task=Task("caption", length="normal")), {ROWS[1].name: exact_text(captions["normal"])})
    for question in sentences.questions(scene, rng):
        scorer = exact_text(question.answer)
        yield Item(Request(image, question.text), {ROWS[2].name: scorer, f"- {question.kind}": scorer})
    label, shapes = sample_label(scene, rng)
    yield Item(Request(image, task=Task("detect", labels=(label,))), {"detection, F1": _box_scorer(shapes)})
    yield Item(Request(image, task=Task("point", labels=(label,))), {"points within shapes, F1": _point_scorer(shapes)})
    if scene.shapes:
        yield from _about_shapes(scene, image, rng)


def stack_items(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:  # noqa: ARG001  the module's protocol
    """Requests about a stack (:mod:`training.data.stacks`): each name is to give the box of its own shape alone."""
    for shape in scene.shapes:
        yield Item(Request(image, task=Task("detect", labels=(shape.name,))), {ROWS[-1].name: _only_box(shape)})


def _only_box(shape: Shape) -> Scorer:
    def score(answer: Answer) -> Score:
        boxes = [one.box for one in answer.detections if one.box]
        return Score(float(len(boxes) == 1 and overlap(boxes[0], shape.box) >= 0.5), 1)

    return score


def _about_shapes(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:
    shape = rng.choice(scene.shapes)
    reference = Task("query", text="What is this?", references=(shape.box,))
    yield Item(Request(image, task=reference), {"what is this, exact": exact_text(sentences.phrase(shape))})
    counting = Request(image, task=Task("query", text="How many shapes are there?", reasoning=True))
    count = exact_text(sentences.NUMBERS[len(scene.shapes)])
    points = _point_scorer(scene.shapes)
    yield Item(counting, {"counting aloud, exact": count, "counting aloud, points within, F1": points})


def _box_scorer(shapes: Sequence[Shape]) -> Scorer:
    expected: list[LabelledBox] = [("", shape.box) for shape in shapes]
    return lambda answer: box_f1([("", one.box) for one in answer.detections if one.box], expected)


def _point_scorer(shapes: Sequence[Shape]) -> Scorer:
    outlines = [shape.polygon for shape in shapes]
    return lambda answer: point_f1([one.point for one in answer.detections if one.point], outlines)
