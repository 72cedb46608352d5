"""The hand-drawn pictures of the gallery: plain shapes and one word, with the place of each: the truth is known.

Owns what the pictures look like. Knows nothing of models, tasks or answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from vlm.types import Box

Colour = tuple[int, int, int]
Corners = tuple[int, int, int, int]

WIDTH, HEIGHT = 480, 360
_FINE = 2
"""Pictures are drawn so many times as large and then reduced, which makes edges smooth."""

COLOURS: dict[str, Colour] = {
    "red": (220, 35, 35),
    "green": (40, 160, 60),
    "blue": (40, 70, 215),
    "yellow": (240, 215, 40),
    "purple": (140, 50, 170),
}
INK: Colour = (12, 12, 12)
KINDS = ("circle", "square", "triangle", "star")


@dataclass(frozen=True)
class Thing:
    """A shape or a word: what it is called, what is said of it at length, and its tight box in pixels."""

    name: str
    description: str
    corners: Corners

    @property
    def kind(self) -> str:
        """``"circle"`` of a red circle."""
        return self.name.split()[-1]

    @property
    def box(self) -> Box:
        """Its place in 0..1 of the picture."""
        x_min, y_min, x_max, y_max = self.corners
        return Box(x_min / WIDTH, y_min / HEIGHT, x_max / WIDTH, y_max / HEIGHT)


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn; ``caption`` is a true one, ``word`` is written in capitals."""

    name: str
    background: Colour
    caption: str
    shapes: tuple[Thing, ...]
    word: Thing | None = None

    def thing(self, name: str) -> Thing:
        """The thing of that name, which must be there."""
        return next(one for one in (*self.shapes, self.word) if one is not None and one.name == name)

    def picture(self) -> Image.Image:
        """Draw it: 480 by 360 pixels, RGB."""
        image = Image.new("RGB", (WIDTH * _FINE, HEIGHT * _FINE), self.background)
        pen = ImageDraw.Draw(image)
        for shape in self.shapes:
            _draw_shape(pen, shape)
        if self.word is not None:
            _draw_word(image, self.word)
        return image.reduce(_FINE)


def _draw_shape(pen: ImageDraw.ImageDraw, shape: Thing) -> None:
    left, top, right, bottom = (value * _FINE for value in shape.corners)
    colour = COLOURS[shape.name.split()[0]]
    if shape.kind == "circle":
        pen.ellipse((left, top, right, bottom), fill=colour)
        return
    outline = {"square": _SQUARE, "triangle": _TRIANGLE, "star": _star()}[shape.kind]
    pen.polygon([(left + x * (right - left), top + y * (bottom - top)) for x, y in outline], fill=colour)


def _draw_word(image: Image.Image, word: Thing) -> None:
    """Its ink fills the box, whatever the typeface says of its own extent."""
    left, top, right, bottom = (value * _FINE for value in word.corners)
    ink = Image.new("L", image.size)
    ImageDraw.Draw(ink).text((40, 40), word.name, fill=255, font=ImageFont.load_default(200))
    fitted = ink.crop(ink.getbbox()).resize((right - left, bottom - top))
    image.paste(INK, (left, top), fitted)


_SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
_TRIANGLE = ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0))


def _star() -> list[tuple[float, float]]:
    """Five points, stretched so that they touch all four sides of the unit square."""
    turns = [math.pi * (index / 5 - 0.5) for index in range(10)]
    radii = [0.42 if index % 2 else 1.0 for index in range(10)]
    raw = [(radius * math.cos(turn), radius * math.sin(turn)) for radius, turn in zip(radii, turns, strict=True)]
    left, top = (min(corner[axis] for corner in raw) for axis in (0, 1))
    right, bottom = (max(corner[axis] for corner in raw) for axis in (0, 1))
    return [((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in raw]


THREE = Scene(
    "three-shapes",
    (248, 248, 248),
    "a red circle, a yellow star and a blue square",
    (
        Thing("red circle", "large red circle", (30, 45, 175, 190)),
        Thing("yellow star", "small yellow star", (195, 225, 285, 315)),
        Thing("blue square", "large blue square", (315, 90, 455, 230)),
    ),
)
TWO = Scene(
    "two-shapes",
    (225, 205, 170),
    "a green triangle left of a purple star",
    (
        Thing("green triangle", "large green triangle", (35, 120, 185, 270)),
        Thing("purple star", "large purple star", (300, 60, 450, 205)),
    ),
)
WORD = Scene("word", (248, 248, 248), "the word EXIT", (), Thing("EXIT", "EXIT", (130, 140, 340, 213)))
SCENES = (THREE, TWO, WORD)
