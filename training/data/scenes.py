"""The contents of an image: shapes, a word and a background, with coordinates normalised to 0..1.

:mod:`training.data.world` generates scenes, :mod:`training.data.drawing` draws them and :mod:`training.data.sentences`
describes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from training.data.shapes import OUTLINES, Colour
from vlm.types import Box, Point, Polygon

THIRDS = (1 / 3, 2 / 3)
"""Where the image is divided into the nine regions that sentences name."""


@dataclass(frozen=True)
class Shape:
    """One coloured shape: its kind, the name of its colour, its exact RGB shade, its size and its tight box.

    ``size`` is ``"small"`` or ``"large"``.
    """

    kind: str
    colour: str
    shade: Colour
    size: str
    box: Box

    @property
    def name(self) -> str:
        """Colour and kind (``"red circle"``), which no two shapes of a scene have in common."""
        return f"{self.colour} {self.kind}"

    @property
    def centre(self) -> Point:
        """The centre of the box, which lies inside the shape for every kind."""
        return middle(self.box)

    @cached_property
    def polygon(self) -> Polygon:
        """The corners of the outline; of a circle, eight points on it."""
        box = self.box
        width, height = box.x_max - box.x_min, box.y_max - box.y_min
        return tuple(Point(box.x_min + x * width, box.y_min + y * height) for x, y in OUTLINES[self.kind])

    @property
    def region(self) -> str:
        """The region of its centre: ``"top left"``, ``"bottom"``, ``"center"`` and so on."""
        row = ("top", "", "bottom")[_third(self.centre.y)]
        column = ("left", "", "right")[_third(self.centre.x)]
        return f"{row} {column}".strip() or "center"


@dataclass(frozen=True)
class Word:
    """A word in capital letters, and the tight box around its ink.

    ``em`` is the font size in units of the square root of the image's area, ``stroke`` the width of the outline in
    units of the font size, and ``dark`` whether the letters are dark on a light background.
    """

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
    """Faint structure over the whole image: a gradient, stripes and grain, in levels of 255."""

    slope: tuple[float, float]
    stripes: float
    stripe_count: int
    grain: float
    seed: int


FLAT = Texture((0.0, 0.0), 0.0, 1, 0.0, 0)
"""No texture at all."""


@dataclass(frozen=True)
class Scene:
    """Everything in one image. Shapes are ordered by their centres from left to right.

    Attributes:
        width, height: The image's own size in pixels.
        inside: Whether the second of two shapes lies within the first.
        background: The name of its colour; ``shade`` is the exact RGB colour.
        more: Further words, which no sentence mentions (:mod:`training.data.pages`).
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
        """All words in the image."""
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
