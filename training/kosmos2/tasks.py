"""Kosmos-2's tasks in the world of shapes: prompts of the model card about a scene, and what answers them."""

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

_OF, _SHOWN = "An image of", " The image shows"
_MORE = "</delimiter_of_multi_objects/>"


@dataclass(frozen=True)
class Exercise:
    """A prompt and its answer, both with tags; ``kind`` groups exercises of one wording."""

    kind: str
    prompt: str
    answer: str
    weight: float


def exercises(scene: Scene, rng: random.Random) -> list[Exercise]:
    """All that can be asked about a scene: every thing is looked for, ``rng`` chooses by which words.

    The more things there are, the more often one is looked for: which one is meant is learnt where there are several.
    """
    ground = f" on a {scene.background} background."
    out = [
        Exercise("grounded caption", BRIEF, f"{caption(scene, _OF)}.", 3),
        Exercise("caption", _ungrounded(BRIEF), f"{caption(scene, _OF, grounded=False)}.", 1.5),
        Exercise("grounded details", DETAILED, f"{_SHOWN}{caption(scene, _SHOWN)}{ground}", 2),
        Exercise("details", _ungrounded(DETAILED), f"{_SHOWN}{caption(scene, _SHOWN, grounded=False)}{ground}", 0.7),
    ]
    out += [exercise for thing in scene.things for exercise in _about(thing, scene, rng)]
    out += [
        Exercise(one.kind, f"Question: {one.text} Answer:", f" {one.answer}.", 4 if one.kind == "which word" else 0.9)
        for one in sentences.questions(scene, rng)
    ]
    return out


def chosen(scene: Scene, count: int, rng: random.Random) -> list[Exercise]:
    """So many exercises, by their weights."""
    known = exercises(scene, rng)
    return rng.choices(known, [one.weight for one in known], k=count)


def caption(scene: Scene, begun: str, *, grounded: bool = True) -> str:
    """The short caption after the words ``begun``, each phrase tied to its box if ``grounded``; no stop at its end."""
    parts = sentences.caption(scene, tagged, begun)
    return "".join(map(tagged if grounded else _spaced, parts))


def tagged(part: Part) -> str:
    """A part as Kosmos-2 writes it: a phrase between tags, then its box."""
    if part.thing is None:
        return _spaced(part)
    return f"<phrase> {part.text}</phrase>{located(part.thing.box)}"


def located(*boxes: Box) -> str:
    """Boxes of one phrase as corner cells."""
    return f"<object>{_MORE.join(map(_corners, boxes))}</object>"


def _corners(box: Box) -> str:
    first, last = cells_of(box)
    return CELLS[first] + CELLS[last]


def _spaced(part: Part) -> str:
    """Words between phrases: a space before, none after; none before a comma."""
    text = part.text.strip()
    return text if text.startswith(",") else f" {text}"


def _about(thing: Shape | Word, scene: Scene, rng: random.Random) -> list[Exercise]:
    named = sentences.phrase(thing) if isinstance(thing, Shape) else sentences.word_phrase(thing)
    asked, boxes = named, [thing.box]
    if isinstance(thing, Shape) and rng.random() < 0.4:
        asked, boxes = thing.kind, [other.box for other in scene.shapes if other.kind == thing.kind]
    elif isinstance(thing, Shape) and rng.random() < 0.3:
        asked = thing.name
    return [
        Exercise("phrase to box", f"<grounding><phrase> {asked}</phrase>", located(*boxes), 2.5),
        Exercise(
            "box to phrase",
            f"<grounding><phrase>It</phrase>{located(thing.box)} is",
            f" {named}.",
            0.8 if isinstance(thing, Shape) else 2,
        ),
    ]


def _ungrounded(prompt: str) -> str:
    return prompt.removeprefix("<grounding>")
