"""Kosmos-2's examination: captions with their boxes, phrases, regions and questions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from training.data import sentences
from training.data.scenes import Scene, Shape
from training.evaluation.metrics import Answer, Item, Labelled, Mark, Row, exactly, found
from training.kosmos2.tasks import Exercise, exercises, tagged
from vlm.types import Request, Task

_QUESTIONS = ("how many", "what colour", "what shape", "what relation", "is there", "which word")
ROWS = (
    Row("grounded caption, exact", 0.85),
    Row("grounded caption, F1", 0.85),
    Row("caption, exact"),
    Row("grounded details, exact"),
    Row("phrase to box, F1", 0.85),
    Row("box to phrase, exact", 0.9),
    Row("questions, exact", 0.9),
    *(Row(f"- {kind}") for kind in _QUESTIONS),
)


def items(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:
    """By the prompts of the model card; a phrase and a region by their tasks."""
    known = {one.kind: one for one in exercises(scene, rng)}
    brief = known["grounded caption"]
    yield Item(Request(image, brief.prompt), {ROWS[0].name: _said(brief), ROWS[1].name: _grounded(scene)})
    for row, kind in ((ROWS[2], "caption"), (ROWS[3], "grounded details")):
        yield Item(Request(image, known[kind].prompt), {row.name: _said(known[kind])})
    if scene.shapes:
        yield from _about(rng.choice(scene.shapes), image)
    for question in sentences.questions(scene, rng):
        right = exactly(f"{question.answer}.")
        yield Item(Request(image, question.text), {ROWS[6].name: right, f"- {question.kind}": right})


def _about(shape: Shape, image: bytes) -> Iterator[Item]:
    name = sentences.phrase(shape)
    yield Item(Request(image, task=Task("detect", labels=(name,))), {ROWS[4].name: _located(shape, name)})
    region = Request(image, task=Task("region_caption", region=shape.box))
    yield Item(region, {ROWS[5].name: exactly(f"It is {name}.")})


def _said(exercise: Exercise) -> Callable[[Answer], Mark]:
    """The words of prompt and answer without their tags."""
    return exactly(sentences.untagged(exercise.prompt + exercise.answer))


def _grounded(scene: Scene) -> Callable[[Answer], Mark]:
    parts = sentences.caption(scene, tagged, "An image of")
    wanted: list[Labelled] = [(part.text, part.thing.box) for part in parts if part.thing is not None]
    return lambda answer: found(answer.labelled, wanted)


def _located(shape: Shape, name: str) -> Callable[[Answer], Mark]:
    return lambda answer: found(answer.labelled, [(name, shape.box)])
