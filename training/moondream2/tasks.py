"""Moondream 2's tasks in the world of shapes: prompts about a scene, and what is written after them, step by step.

Owns the ids of prompts and answers. A location is an id like any other (:mod:`vlm.models.moondream2.locations`); which
head it is read from, the recipe decides.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.data import sentences
from training.data.scenes import Scene, Shape, Word, middle
from training.data.shapes import COLOURS, KINDS
from training.moondream2.files import BINS
from vlm.models.moondream2.locations import LocationIds
from vlm.models.moondream2.vocabulary import Ids, Vocabulary
from vlm.types import Box, CaptionLength, Point

ALL = "shape"
"""The label that every shape answers to."""

_ABSENT = 0.15
"""So often is something looked for that is not there."""


@dataclass(frozen=True)
class Exercise:
    """Ids that are read, and ids that are written after them, the end included."""

    prompt: tuple[int, ...]
    written: tuple[int, ...]
    weight: float


def looked_for(scene: Scene, rng: random.Random) -> tuple[str, list[Shape]]:
    """A label, and the shapes that it means from left to right: a kind, a name, all, or what is not there."""
    shapes = list(scene.shapes)
    if not shapes or rng.random() < _ABSENT:
        names = {fact for shape in shapes for fact in (shape.kind, shape.name)}
        near = [*KINDS, *(f"{colour} {kind}" for colour in COLOURS for kind in KINDS)]
        return rng.choice([name for name in near if name not in names]), []
    chosen = rng.choice(shapes)
    label = rng.choice((chosen.kind, chosen.kind, chosen.name, ALL))
    return label, [shape for shape in shapes if label in (shape.kind, shape.name, ALL)]


def thought(scene: Scene) -> list[tuple[str, Point]]:
    """What is thought before shapes are counted: each with its place."""
    return [(shape.name, shape.centre) for shape in scene.shapes]


@dataclass(frozen=True)
class Writer:
    """Turns tasks into ids."""

    ids: Ids
    places: LocationIds
    vocabulary: Vocabulary

    def exercises(self, scene: Scene, rng: random.Random) -> list[Exercise]:
        """All that can be asked about a scene; where there are many such, ``rng`` chooses which.

        The more things there are, the more often something is looked for: what a label means is learnt where there is a
        choice.
        """
        asked = sentences.questions(scene, rng)
        out = [
            self._caption("short", sentences.plain(sentences.caption(scene)), 2.5),
            self._caption("normal", sentences.detailed(scene), 1.5),
            self._caption("long", sentences.paragraph(scene), 0.5),
            *(self._query(one, 5.0 if one.kind == "which word" else 0.7) for one in asked),
            *(self._detect(*looked_for(scene, rng)) for _ in scene.things),
            *(self._point(*looked_for(scene, rng)) for _ in scene.things),
            self._reference(rng.choice(scene.things)),
        ]
        return [*out, self._reasoned(scene)] if scene.shapes else out

    def chosen(self, scene: Scene, count: int, rng: random.Random) -> list[Exercise]:
        """So many exercises, by their weights."""
        known = self.exercises(scene, rng)
        return rng.choices(known, [one.weight for one in known], k=count)

    def point_ids(self, point: Point) -> tuple[int, int]:
        """The ids of a place."""
        return self._coordinate(point.x), self._coordinate(point.y)

    def box_ids(self, box: Box) -> tuple[int, int, int]:
        """The ids of a box: its middle, then its size."""
        width, height = (self._length(one) for one in (box.x_max - box.x_min, box.y_max - box.y_min))
        return *self.point_ids(middle(box)), self.places.sizes + width * BINS + height

    def _coordinate(self, value: float) -> int:
        return self.places.vocabulary + min(BINS - 1, max(0, round(value * BINS)))

    def _length(self, value: float) -> int:
        """The nearest bin; bins are even steps of the logarithm."""
        return min(BINS - 1, max(0, round((math.log2(max(value, 2.0**-10)) + 10) / 10 * (BINS - 1))))

    def _caption(self, length: CaptionLength, text: str, weight: float) -> Exercise:
        return Exercise(self.ids.captions[length], self._said(text), weight)

    def _query(self, asked: sentences.Question, weight: float) -> Exercise:
        return Exercise(self._asked(asked.text, self.ids.query[1] * 2), self._said(asked.answer), weight)

    def _reference(self, thing: Shape | Word) -> Exercise:
        """A question about a box in the prompt."""
        named = sentences.phrase(thing) if isinstance(thing, Shape) else sentences.word_phrase(thing)
        before, after = self.ids.query
        asked = (*before, *self.box_ids(thing.box), *self.vocabulary.encode("What is this?"), *after, *after)
        return Exercise(asked, self._said(named), 1.0)

    def _detect(self, label: str, shapes: Sequence[Shape]) -> Exercise:
        found = [token for shape in shapes for token in self.box_ids(shape.box)]
        return Exercise(self._label(self.ids.detect, label), (*found, self.ids.eos), 2.5)

    def _point(self, label: str, shapes: Sequence[Shape]) -> Exercise:
        found = [token for shape in shapes for token in self.point_ids(shape.centre)]
        return Exercise(self._label(self.ids.point, label), (*found, self.ids.eos), 1.2)

    def _reasoned(self, scene: Scene) -> Exercise:
        """Shapes are counted by pointing at each."""
        asked = self._asked("How many shapes are there?", (*self.ids.query[1], self.ids.reasoning))
        counted = [token for name, place in thought(scene) for token in self._pointed(name, place)]
        answer = self._said(sentences.NUMBERS[len(scene.shapes)])
        return Exercise(asked, (*counted, self.ids.answer, *answer), 1.0)

    def _pointed(self, name: str, place: Point) -> Iterable[int]:
        return (
            self.ids.start_points, *self.vocabulary.encode(f" {name}"), *self.point_ids(place), self.ids.end_ground
        )  # fmt: skip

    def _asked(self, question: str, ending: tuple[int, ...]) -> tuple[int, ...]:
        return (*self.ids.query[0], *self.vocabulary.encode(question), *ending)

    def _label(self, around: tuple[tuple[int, ...], tuple[int, ...]], label: str) -> tuple[int, ...]:
        return (*around[0], *self.vocabulary.encode(f" {label}"), *around[1])

    def _said(self, text: str) -> tuple[int, ...]:
        return (*self.vocabulary.encode(text), self.ids.eos)
