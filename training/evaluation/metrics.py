"""Marks for answers: how much of what could be right is right. Pure geometry and counting."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vlm.types import Box, Detection, Point, Polygon, Request

_RASTER = 256


@dataclass(frozen=True, slots=True)
class Answer:
    """What is marked of an answer: its words, "" where it is geometry alone, and what it found in the image."""

    text: str
    detections: tuple[Detection, ...] = ()

    @property
    def labelled(self) -> list[Labelled]:
        """Every box with what it is said to hold."""
        return [(one.label or one.text or "", one.box) for one in self.detections if one.box is not None]


@dataclass(frozen=True, slots=True)
class Mark:
    """What one answer earned. A score is the sum of what was gained over the sum of what was possible."""

    gained: float
    possible: float


@dataclass(frozen=True)
class Item:
    """One question of an examination; ``marks`` says for each row of the table that it counts for how it is marked."""

    request: Request
    marks: Mapping[str, Callable[[Answer], Mark]]

    def mark(self, answer: Answer) -> Mapping[str, Mark]:
        """What the answer earned in each row."""
        return {row: mark(answer) for row, mark in self.marks.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table, and the score that a finished miniature should reach; None where it is only reported."""

    name: str
    target: float | None = None


Labelled = tuple[Hashable, Box]
Raster = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def exact(text: str, wanted: str) -> Mark:
    """All or nothing; runs of spaces count as one."""
    return Mark(float(text.split() == wanted.split()), 1)


def exactly(wanted: str) -> Callable[[Answer], Mark]:
    """:func:`exact` of an answer's words."""
    return lambda answer: exact(answer.text, wanted)


def letters(text: str, wanted: str) -> Mark:
    """The letters of ``wanted``, less the fewest changes that make it of ``text``."""
    return Mark(max(0, len(wanted) - _distance(text.strip(), wanted)), len(wanted))


def found(given: Sequence[Labelled], wanted: Sequence[Labelled], least: float = 0.5) -> Mark:
    """F1 when summed: each wanted box is found by one given box of its label that overlaps it by ``least``."""
    left = list(wanted)
    for label, box in given:
        fitting = [one for one in left if one[0] == label and overlap(one[1], box) >= least]
        if fitting:
            left.remove(max(fitting, key=lambda one: overlap(one[1], box)))
    hits = len(wanted) - len(left)
    return Mark(2 * hits, len(given) + len(wanted))


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    shared = max(0.0, width) * max(0.0, height)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def polygon_overlap(given: Sequence[Polygon], wanted: Polygon) -> Mark:
    """Intersection over union of areas, on a raster."""
    one, other = _raster(given), _raster([wanted])
    return Mark(float((one & other).sum() / max(1, (one | other).sum())), 1)


def within(points: Sequence[Point], shapes: Sequence[Polygon]) -> Mark:
    """F1 when summed: each shape is found by one point inside it."""
    left = [_raster([shape]) for shape in shapes]
    for point in points:
        row, column = (min(_RASTER - 1, int(value * _RASTER)) for value in (point.y, point.x))
        hit = next((place for place, shape in enumerate(left) if shape[row, column]), None)
        if hit is not None:
            left.pop(hit)
    return Mark(2 * (len(shapes) - len(left)), len(points) + len(shapes))


def _area(box: Box) -> float:
    return (box.x_max - box.x_min) * (box.y_max - box.y_min)


def _raster(polygons: Sequence[Polygon]) -> Raster:
    image = Image.new("1", (_RASTER, _RASTER))
    pen = ImageDraw.Draw(image)
    for polygon in polygons:
        pen.polygon([(point.x * _RASTER, point.y * _RASTER) for point in polygon], fill=1)
    return np.asarray(image)


def _distance(one: str, other: str) -> int:
    """Fewest letters to insert, delete or replace (Levenshtein)."""
    row = list(range(len(other) + 1))
    for count, letter in enumerate(one, start=1):
        before, row[0] = row[0], count
        for place, wanted in enumerate(other, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (letter != wanted))
    return row[-1]
