"""Kosmos-2's examination: captions with their boxes, phrases, regions and questions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from miniatures import sentences
from miniatures.kosmos2.tasks import Exercise, exercises, tagged
from miniatures.scenes import Scene, Shape
from miniatures.scores import Answer, Item, Labelled, Mark, Row, exact, found
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
    yield Item(ROWS[0].name, Request(image, brief.prompt), _said(brief))
    yield Item(ROWS[1].name, Request(image, brief.prompt), _grounded(scene))
    yield Item(ROWS[2].name, Request(image, known["caption"].prompt), _said(known["caption"]))
    yield Item(ROWS[3].name, Request(image, known["grounded details"].prompt), _said(known["grounded details"]))
    if scene.shapes:
        yield from _about(rng.choice(scene.shapes), image)
    for question in sentences.questions(scene, rng):
        for row in (ROWS[6].name, f"- {question.kind}"):
            yield Item(row, Request(image, question.text), _answered(question))


def _about(shape: Shape, image: bytes) -> Iterator[Item]:
    name = sentences.phrase(shape)
    yield Item(ROWS[4].name, Request(image, task=Task("detect", labels=(name,))), _located(shape, name))
    region = Request(image, task=Task("region_caption", region=shape.box))
    yield Item(ROWS[5].name, region, lambda answer: exact(answer.text, f"It is {name}."))


def _said(exercise: Exercise) -> Callable[[Answer], Mark]:
    """The words of prompt and answer without their tags."""
    wanted = sentences.untagged(exercise.prompt + exercise.answer)
    return lambda answer: exact(answer.text, wanted)


def _grounded(scene: Scene) -> Callable[[Answer], Mark]:
    parts = sentences.caption(scene, tagged, "An image of")
    wanted: list[Labelled] = [(part.text, part.thing.box) for part in parts if part.thing is not None]
    return lambda answer: found(_given(answer), wanted)


def _located(shape: Shape, name: str) -> Callable[[Answer], Mark]:
    return lambda answer: found(_given(answer), [(name, shape.box)])


def _answered(question: sentences.Question) -> Callable[[Answer], Mark]:
    return lambda answer: exact(answer.text, f"{question.answer}.")


def _given(answer: Answer) -> list[Labelled]:
    return [(one.label or "", one.box) for one in answer.detections if one.box is not None]
