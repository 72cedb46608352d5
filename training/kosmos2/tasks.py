"""Kosmos-2's tasks in the world of shapes: the prompts of the model card for a scene, and the expected answers."""

from __future__ import annotations

import random
from dataclasses import dataclass

from training.data import sentences
from training.data.scenes import Scene, Shape, Word
from training.data.sentences import Part
from vlm.models.kosmos2.parsing import cells_of
from vlm.models.kosmos2.tasks import BRIEF, DETAILED
from vlm.models.kosmos2.vocabulary import CELLS
from vlm.types import Box

_BRIEF_START, _DETAILED_START = "An image of", " The image shows"
_NEXT_BOX = "</delimiter_of_multi_objects/>"


@dataclass(frozen=True)
class Example:
    """A prompt and its answer, both with tags; ``kind`` groups examples of the same wording."""

    kind: str
    prompt: str
    answer: str
    weight: float


def all_examples(scene: Scene, rng: random.Random) -> list[Example]:
    """All examples for a scene, with two for every shape and word; ``rng`` chooses the phrases that name them.

    The more things a scene has, the more often one of them is to be found: only there does the phrase matter.
    """
    background = f" on a {scene.background} background."
    start = _DETAILED_START
    examples = [
        Example("grounded caption", BRIEF, f"{caption(scene, _BRIEF_START)}.", 3),
        Example("caption", _ungrounded(BRIEF), f"{caption(scene, _BRIEF_START, grounded=False)}.", 1.5),
        Example("grounded details", DETAILED, f"{start}{caption(scene, start)}{background}", 2),
        Example("details", _ungrounded(DETAILED), f"{start}{caption(scene, start, grounded=False)}{background}", 0.7),
    ]
    examples += [example for thing in scene.things for example in _about_thing(thing, scene, rng)]
    examples += [
        Example(one.kind, f"Question: {one.text} Answer:", f" {one.answer}.", 4 if one.kind == "which word" else 0.9)
        for one in sentences.questions(scene, rng)
    ]
    return examples


def sample_examples(scene: Scene, count: int, rng: random.Random) -> list[Example]:
    """``count`` examples by their weights, with replacement."""
    examples = all_examples(scene, rng)
    return rng.choices(examples, [one.weight for one in examples], k=count)


def caption(scene: Scene, start: str, *, grounded: bool = True) -> str:
    """The short caption that follows ``start``, without a full stop; if ``grounded``, with a box for each phrase."""
    parts = sentences.caption(scene, tagged, start)
    return "".join(map(tagged if grounded else _spaced, parts))


def tagged(part: Part) -> str:
    """A part of a caption as Kosmos-2 writes it: a phrase between tags, then its box."""
    if part.thing is None:
        return _spaced(part)
    return f"<phrase> {part.text}</phrase>{box_tags(part.thing.box)}"


def box_tags(*boxes: Box) -> str:
    """The boxes of one phrase, each as the cells of its first and last corner."""
    return f"<object>{_NEXT_BOX.join(map(_corner_cells, boxes))}</object>"


def _corner_cells(box: Box) -> str:
    first, last = cells_of(box)
    return CELLS[first] + CELLS[last]


def _spaced(part: Part) -> str:
    """The text between phrases: a space before it, unless it starts with a comma, and none after it."""
    text = part.text.strip()
    return text if text.startswith(",") else f" {text}"


def _about_thing(thing: Shape | Word, scene: Scene, rng: random.Random) -> list[Example]:
    name = sentences.phrase(thing) if isinstance(thing, Shape) else sentences.word_phrase(thing)
    phrase, boxes = name, [thing.box]
    if isinstance(thing, Shape) and rng.random() < 0.4:
        phrase, boxes = thing.kind, [other.box for other in scene.shapes if other.kind == thing.kind]
    elif isinstance(thing, Shape) and rng.random() < 0.3:
        phrase = thing.name
    return [
        Example("phrase to box", f"<grounding><phrase> {phrase}</phrase>", box_tags(*boxes), 2.5),
        Example(
            "box to phrase",
            f"<grounding><phrase>It</phrase>{box_tags(thing.box)} is",
            f" {name}.",
            0.8 if isinstance(thing, Shape) else 2,
        ),
    ]


def _ungrounded(prompt: str) -> str:
    return prompt.removeprefix("<grounding>")
