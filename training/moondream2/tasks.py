"""Moondream 2's tasks in the world of shapes, as token ids: prompts about a scene, and the expected answers.

A coordinate or a size is an id beyond those of the tokenizer, see :mod:`vlm.models.moondream2.locations`; which head
each id is predicted by, :mod:`training.moondream2.recipe` decides.
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
from vlm.models.moondream2.locations import PlaceIds
from vlm.models.moondream2.vocabulary import Ids, Vocabulary
from vlm.types import Box, CaptionLength, Point

ALL = "shape"
"""The label that means every shape."""

_ABSENT = 0.15
"""Share of detections whose label is not in the image."""


@dataclass(frozen=True)
class Example:
    """The ids of a prompt, and the ids of its answer including the end of text."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    weight: float


def sample_label(scene: Scene, rng: random.Random) -> tuple[str, list[Shape]]:
    """A label and the shapes that it means, from left to right: a kind, a name, ``ALL``, or something absent."""
    shapes = list(scene.shapes)
    if not shapes or rng.random() < _ABSENT:
        present = {fact for shape in shapes for fact in (shape.kind, shape.name)}
        labels = [*KINDS, *(f"{colour} {kind}" for colour in COLOURS for kind in KINDS)]
        return rng.choice([label for label in labels if label not in present]), []
    chosen = rng.choice(shapes)
    label = rng.choice((chosen.kind, chosen.kind, chosen.name, ALL))
    return label, [shape for shape in shapes if label in (shape.kind, shape.name, ALL)]


def reasoning_steps(scene: Scene) -> list[tuple[str, Point]]:
    """What the model writes before it answers how many shapes there are: the name and the point of each."""
    return [(shape.name, shape.centre) for shape in scene.shapes]


@dataclass(frozen=True)
class ExampleEncoder:
    """Encodes the examples of a scene as token ids."""

    ids: Ids
    locations: PlaceIds
    vocabulary: Vocabulary

    def all_examples(self, scene: Scene, rng: random.Random) -> list[Example]:
        """Examples of every task; ``rng`` chooses the labels and the referenced box.

        There is a detection and a point for every shape and word: the more of them a scene has, the more the label
        matters.
        """
        questions = sentences.questions(scene, rng)
        examples = [
            self._caption("short", sentences.plain(sentences.caption(scene)), 2.5),
            self._caption("normal", sentences.detailed(scene), 1.5),
            self._caption("long", sentences.paragraph(scene), 0.5),
            *(self._query(one, 5.0 if one.kind == "which word" else 0.7) for one in questions),
            *(self._detect(*sample_label(scene, rng)) for _ in scene.things),
            *(self._point(*sample_label(scene, rng)) for _ in scene.things),
            self._reference(rng.choice(scene.things)),
        ]
        return [*examples, self._counting(scene)] if scene.shapes else examples

    def sample_examples(self, scene: Scene, count: int, rng: random.Random) -> list[Example]:
        """``count`` examples by their weights, with replacement."""
        examples = self.all_examples(scene, rng)
        return rng.choices(examples, [one.weight for one in examples], k=count)

    def point_ids(self, point: Point) -> tuple[int, int]:
        """The ids of a point: x, then y."""
        return self._coordinate(point.x), self._coordinate(point.y)

    def box_ids(self, box: Box) -> tuple[int, int, int]:
        """The ids of a box: the x and y of its centre, and one for its width and height together."""
        width, height = (self._size_bin(one) for one in (box.x_max - box.x_min, box.y_max - box.y_min))
        return *self.point_ids(middle(box)), self.locations.sizes + width * BINS + height

    def _coordinate(self, value: float) -> int:
        return self.locations.words + min(BINS - 1, max(0, round(value * BINS)))

    def _size_bin(self, value: float) -> int:
        """The nearest bin; the bins are equidistant on a logarithmic scale from 2^-10 to 1."""
        return min(BINS - 1, max(0, round((math.log2(max(value, 2.0**-10)) + 10) / 10 * (BINS - 1))))

    def _caption(self, length: CaptionLength, text: str, weight: float) -> Example:
        return Example(self.ids.captions[length], self._text(text), weight)

    def _query(self, question: sentences.Question, weight: float) -> Example:
        return Example(self._question(question.text, self.ids.query[1] * 2), self._text(question.answer), weight)

    def _reference(self, thing: Shape | Word) -> Example:
        """A question about a box that is part of the prompt."""
        name = sentences.phrase(thing) if isinstance(thing, Shape) else sentences.word_phrase(thing)
        before, after = self.ids.query
        prompt = (*before, *self.box_ids(thing.box), *self.vocabulary.encode("What is this?"), *after, *after)
        return Example(prompt, self._text(name), 1.0)

    def _detect(self, label: str, shapes: Sequence[Shape]) -> Example:
        boxes = [token for shape in shapes for token in self.box_ids(shape.box)]
        return Example(self._label(self.ids.detect, label), (*boxes, self.ids.eos), 2.5)

    def _point(self, label: str, shapes: Sequence[Shape]) -> Example:
        points = [token for shape in shapes for token in self.point_ids(shape.centre)]
        return Example(self._label(self.ids.point, label), (*points, self.ids.eos), 1.2)

    def _counting(self, scene: Scene) -> Example:
        """Counting with reasoning: a point for each shape, then the number."""
        prompt = self._question("How many shapes are there?", (*self.ids.query[1], self.ids.thinking))
        steps = [token for name, point in reasoning_steps(scene) for token in self._grounded_step(name, point)]
        answer = self._text(sentences.NUMBERS[len(scene.shapes)])
        return Example(prompt, (*steps, self.ids.answer, *answer), 1.0)

    def _grounded_step(self, name: str, point: Point) -> Iterable[int]:
        text, ids = self.vocabulary.encode(f" {name}"), self.ids
        return (ids.start_points, *text, *self.point_ids(point), ids.end_ground)

    def _question(self, text: str, ending: tuple[int, ...]) -> tuple[int, ...]:
        return (*self.ids.query[0], *self.vocabulary.encode(text), *ending)

    def _label(self, template: tuple[tuple[int, ...], tuple[int, ...]], label: str) -> tuple[int, ...]:
        prefix, suffix = template
        return (*prefix, *self.vocabulary.encode(f" {label}"), *suffix)

    def _text(self, text: str) -> tuple[int, ...]:
        return (*self.vocabulary.encode(text), self.ids.eos)
