"""What a scene is: shapes, a word, a background, and everything that is true of them.

All places are normalised to 0..1 of the image. Does not know how scenes come about (:mod:`training.data.world`), how
they are drawn (:mod:`training.data.drawing`), nor what is said about them (:mod:`training.data.sentences`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from training.data.shapes import OUTLINES, Colour
from vlm.types import Box, Point, Polygon

THIRDS = (1 / 3, 2 / 3)
"""Edges of the regions that words can name."""


@dataclass(frozen=True)
class Shape:
    """One coloured shape: its kind, its colour's name and shade, ``"small"`` or ``"large"``, and its tight box."""

    kind: str
    colour: str
    shade: Colour
    size: str
    box: Box

    @property
    def name(self) -> str:
        """Colour and kind (``"red circle"``): no two shapes of a scene share it."""
        return f"{self.colour} {self.kind}"

    @property
    def centre(self) -> Point:
        """The middle of the box, which lies within the shape for every kind."""
        return middle(self.box)

    @cached_property
    def polygon(self) -> Polygon:
        """The corners of the outline; of a circle, eight points on it."""
        box = self.box
        width, height = box.x_max - box.x_min, box.y_max - box.y_min
        return tuple(Point(box.x_min + x * width, box.y_min + y * height) for x, y in OUTLINES[self.kind])

    @property
    def region(self) -> str:
        """Where it is, in words: ``"top left"``, ``"bottom"``, ``"center"``."""
        row = ("top", "", "bottom")[_third(self.centre.y)]
        column = ("left", "", "right")[_third(self.centre.x)]
        return f"{row} {column}".strip() or "center"


@dataclass(frozen=True)
class Word:
    """A word in capital letters: its box, its height and stroke in parts of the root of the image's area."""

    text: str
    box: Box
    em: float
    stroke: float
    dark: bool

    @property
    def quad(self) -> Polygon:
        """Corners of the box, clockwise from the top left."""
        box = self.box
        return (
            Point(box.x_min, box.y_min), Point(box.x_max, box.y_min),
            Point(box.x_max, box.y_max), Point(box.x_min, box.y_max),
        )  # fmt: skip


@dataclass(frozen=True)
class Texture:
    """Light structure over the whole image: a slope, stripes, and grain, in levels of 255."""

    slope: tuple[float, float]
    stripes: float
    stripe_count: int
    grain: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """Everything in one image. Shapes stand in the order of their centres from left to right.

    Attributes:
        width, height: The image's own size in pixels.
        inside: Whether the second of two shapes is drawn within the first (then they stand outer first).
        background: The name of its colour; ``shade`` is the colour itself.
        more: Further words, of which nothing is said (:mod:`training.data.pages`).
    """

    width: int
    height: int
    shapes: tuple[Shape, ...]
    word: Word | None
    background: str
    shade: Colour
    texture: Texture
    inside: bool = False
    more: tuple[Word, ...] = ()

    @property
    def words(self) -> tuple[Word, ...]:
        """All that is written."""
        return self.more if self.word is None else (self.word, *self.more)

    @property
    def things(self) -> tuple[Shape | Word, ...]:
        """The shapes and the word."""
        return self.shapes if self.word is None else (*self.shapes, self.word)


def middle(box: Box) -> Point:
    """The centre of a box."""
    return Point((box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2)


def _third(value: float) -> int:
    return sum(value >= edge for edge in THIRDS)
