"""Kosmos-2's evaluation: captions with boxes and without, phrases, regions and questions."""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.data import sentences
from training.data.scenes import Scene, Shape
from training.evaluation.metrics import Item, LabelledBox, Row, Scorer, box_f1, exact_text
from training.kosmos2.tasks import Example, all_examples, tagged
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
    """Captions by the prompts of the model card, a phrase and a region by their tasks, and questions."""
    examples = {one.kind: one for one in all_examples(scene, rng)}
    brief = examples["grounded caption"]
    scorers = {ROWS[0].name: _text_scorer(brief), ROWS[1].name: _grounding_scorer(scene)}
    yield Item(Request(image, brief.prompt), scorers)
    for row, kind in ((ROWS[2], "caption"), (ROWS[3], "grounded details")):
        yield Item(Request(image, examples[kind].prompt), {row.name: _text_scorer(examples[kind])})
    if scene.shapes:
        yield from _about_shape(rng.choice(scene.shapes), image)
    for question in sentences.questions(scene, rng):
        scorer = exact_text(f"{question.answer}.")
        yield Item(Request(image, question.text), {ROWS[6].name: scorer, f"- {question.kind}": scorer})


def _about_shape(shape: Shape, image: bytes) -> Iterator[Item]:
    name = sentences.phrase(shape)
    yield Item(Request(image, task=Task("detect", labels=(name,))), {ROWS[4].name: _box_scorer(shape, name)})
    region = Request(image, task=Task("region_caption", region=shape.box))
    yield Item(region, {ROWS[5].name: exact_text(f"It is {name}.")})


def _text_scorer(example: Example) -> Scorer:
    """Expects the text of the prompt and the answer, without their tags."""
    return exact_text(sentences.untagged(example.prompt + example.answer))


def _grounding_scorer(scene: Scene) -> Scorer:
    parts = sentences.caption(scene, tagged, "An image of")
    expected: list[LabelledBox] = [(part.text, part.thing.box) for part in parts if part.thing is not None]
    return lambda answer: box_f1(answer.labelled_boxes, expected)


def _box_scorer(shape: Shape, name: str) -> Scorer:
    return lambda answer: box_f1(answer.labelled_boxes, [(name, shape.box)])
