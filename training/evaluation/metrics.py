"""Scores of answers against what is known of a scene: exact texts, letters, boxes, points and polygons."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vlm.types import Box, Detection, Point, Polygon, Request

_RASTER = 256
"""Polygons are compared on a raster of this many pixels a side."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of an answer that are scored: its text, ``""`` if it has none, and the detected objects."""

    text: str
    detections: tuple[Detection, ...] = ()

    @property
    def labelled_boxes(self) -> list[LabelledBox]:
        """Every box with its label, or with its text if it has no label."""
        return [(one.label or one.text or "", one.box) for one in self.detections if one.box is not None]


@dataclass(frozen=True, slots=True)
class Score:
    """The points of one answer. A row of the table is the sum of ``gained`` over the sum of ``possible``."""

    gained: float
    possible: float


Scorer = Callable[[Answer], Score]


@dataclass(frozen=True)
class Item:
    """One request of an evaluation; ``scorers`` has the scorer of each row of the table that its answer counts for."""

    request: Request
    scorers: Mapping[str, Scorer]

    def score(self, answer: Answer) -> Mapping[str, Score]:
        """The score of ``answer`` in each row."""
        return {row: scorer(answer) for row, scorer in self.scorers.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: its name, and the score from 0 to 1 that a trained miniature should reach, if any."""

    name: str
    target: float | None = None


LabelledBox = tuple[Hashable, Box]
Raster = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def exact(text: str, expected: str) -> Score:
    """One point if the texts are equal; runs of whitespace count as one space."""
    return Score(float(text.split() == expected.split()), 1)


def exact_text(expected: str) -> Scorer:
    """A scorer that applies :func:`exact` to an answer's text."""
    return lambda answer: exact(answer.text, expected)


def letters(text: str, expected: str) -> Score:
    """A point for each letter of ``expected``, minus the edit distance between the texts."""
    return Score(max(0, len(expected) - _edit_distance(text.strip(), expected)), len(expected))


def box_f1(boxes: Sequence[LabelledBox], expected: Sequence[LabelledBox], min_overlap: float = 0.5) -> Score:
    """F1 of labelled boxes, once summed over answers.

    An expected box is found if a box of the same label overlaps it by at least ``min_overlap``. Each box finds one.
    """
    missing = list(expected)
    for label, box in boxes:
        matches = [one for one in missing if one[0] == label and overlap(one[1], box) >= min_overlap]
        if matches:
            missing.remove(max(matches, key=lambda one: overlap(one[1], box)))
    hits = len(expected) - len(missing)
    return Score(2 * hits, len(boxes) + len(expected))


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    intersection = max(0.0, width) * max(0.0, height)
    union = _area(one) + _area(other) - intersection
    return intersection / union if union > 0 else 0.0


def polygon_overlap(polygons: Sequence[Polygon], expected: Polygon) -> Score:
    """Intersection over union of the area of all ``polygons`` and of the expected one."""
    one, other = _raster(polygons), _raster([expected])
    return Score(float((one & other).sum() / max(1, (one | other).sum())), 1)


def point_f1(points: Sequence[Point], outlines: Sequence[Polygon]) -> Score:
    """F1 of points, once summed over answers: each expected outline is found by one point inside it."""
    missing = [_raster([outline]) for outline in outlines]
    for point in points:
        row, column = (min(_RASTER - 1, int(value * _RASTER)) for value in (point.y, point.x))
        hit = next((index for index, raster in enumerate(missing) if raster[row, column]), None)
        if hit is not None:
            missing.pop(hit)
    return Score(2 * (len(outlines) - len(missing)), len(points) + len(outlines))


def _area(box: Box) -> float:
    return (box.x_max - box.x_min) * (box.y_max - box.y_min)


def _raster(polygons: Sequence[Polygon]) -> Raster:
    image = Image.new("1", (_RASTER, _RASTER))
    canvas = ImageDraw.Draw(image)
    for polygon in polygons:
        canvas.polygon([(point.x * _RASTER, point.y * _RASTER) for point in polygon], fill=1)
    return np.asarray(image)


def _edit_distance(one: str, other: str) -> int:
    """The Levenshtein distance: the minimum number of letters to insert, delete or replace."""
    row = list(range(len(other) + 1))
    for count, letter in enumerate(one, start=1):
        diagonal, row[0] = row[0], count
        for index, expected in enumerate(other, start=1):
            diagonal, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, diagonal + (letter != expected))
    return row[-1]
