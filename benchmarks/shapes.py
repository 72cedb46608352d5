"""Images of coloured shapes of which it is known what is where; the miniatures were trained on such ones.

Owns how they are drawn, and how they are made hard to read: noise, blur, shapes that overlap, are half hidden, of a
colour between two, far too small or too large, or too many. Knows no model.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from vlm.types import Box

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 35, 35), "green": (40, 160, 60), "blue": (40, 70, 215),
    "yellow": (240, 215, 40), "purple": (140, 50, 170), "orange": (245, 135, 25),
}  # fmt: skip
BACKGROUNDS: tuple[Colour, ...] = ((250, 250, 250), (165, 165, 165), (15, 15, 15), (225, 205, 170))
KINDS = ("circle", "square", "triangle", "star")
SIZES = {"small": (0.14, 0.2), "large": (0.28, 0.4)}
EXTREMES = {"small": (0.05, 0.09), "large": (0.48, 0.62)}
DISTURBANCES = ("noise", "blur", "overlap", "hidden", "colour", "scale", "crowd")
SIDE = 192
APART = 0.06


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape; ``size`` is "small" or "large"."""

    kind: str
    colour: str
    size: str
    box: Box

    @property
    def name(self) -> str:
        """As in "red circle"."""
        return f"{self.colour} {self.kind}"

    @property
    def phrase(self) -> str:
        """As in "an orange star"."""
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.name}"

    @property
    def centre(self) -> tuple[float, float]:
        """Normalised x and y."""
        return (self.box.x_min + self.box.x_max) / 2, (self.box.y_min + self.box.y_max) / 2


@dataclass(frozen=True, slots=True)
class Scene:
    """A PNG image and its shapes from left to right, no two of one name."""

    image: bytes
    shapes: tuple[Shape, ...]

    @property
    def caption(self) -> str:
        """Names up to three shapes, in the words of the miniatures' training."""
        phrases = [shape.phrase for shape in self.shapes[:3]]
        if len(phrases) == 2:
            return _pair(*self.shapes[:2])
        return ", ".join(phrases[:-1]) + " and " + phrases[-1] if len(phrases) > 1 else phrases[0]


def scenes(number: int, first: int = 0, *, hard: bool) -> list[Scene]:
    """So many scenes, of consecutive seeds; ``hard`` ones have one or two disturbances each."""
    return [scene(seed, hard=hard) for seed in range(first, first + number)]


def scene(seed: int, *, hard: bool) -> Scene:
    """The same for the same seed."""
    rng = random.Random(f"{seed} {hard}")  # noqa: S311  test images, not secrets
    chosen = frozenset(rng.sample(DISTURBANCES, rng.choice((1, 2)))) if hard else frozenset[str]()
    shapes = _placed(rng, rng.randint(4, 5) if "crowd" in chosen else rng.randint(1, 3), chosen)
    return Scene(_png(_disturbed(rng, _drawn(rng, shapes, chosen), chosen)), shapes)


def _pair(left: Shape, right: Shape) -> str:
    across, down = (abs(a - b) for a, b in zip(left.centre, right.centre, strict=True))
    if across >= down:
        return f"{left.phrase} left of {right.phrase}"
    upper, lower = sorted((left, right), key=lambda shape: shape.centre[1])
    return f"{upper.phrase} above {lower.phrase}"


def _placed(rng: random.Random, number: int, chosen: frozenset[str]) -> tuple[Shape, ...]:
    """Tries until all shapes have a place; begins anew where there is none."""
    found: list[Shape] = []
    for attempt in count(1):
        shape = _shape(rng, EXTREMES if "scale" in chosen else SIZES)
        if _fits(shape, found, may_overlap="overlap" in chosen):
            found.append(shape)
        if len(found) == number:
            break
        if attempt % 50 == 0:
            found = []
    return tuple(sorted(found, key=lambda shape: shape.centre))


def _shape(rng: random.Random, sizes: dict[str, tuple[float, float]]) -> Shape:
    size = rng.choice(list(sizes))
    side, stretch = rng.uniform(*sizes[size]), math.sqrt(rng.uniform(0.85, 1.18))
    width, height = side * stretch, side / stretch
    x, y = rng.uniform(0.01, 0.99 - width), rng.uniform(0.01, 0.99 - height)
    return Shape(rng.choice(KINDS), rng.choice(list(COLOURS)), size, Box(x, y, x + width, y + height))


def _fits(shape: Shape, others: list[Shape], *, may_overlap: bool) -> bool:
    if any(shape.name == other.name or math.dist(shape.centre, other.centre) < APART for other in others):
        return False
    return may_overlap or not any(_touch(shape.box, other.box) for other in others)


def _touch(one: Box, other: Box, margin: float = 0.02) -> bool:
    across = one.x_min < other.x_max + margin and other.x_min < one.x_max + margin
    return across and one.y_min < other.y_max + margin and other.y_min < one.y_max + margin


def _drawn(rng: random.Random, shapes: tuple[Shape, ...], chosen: frozenset[str]) -> Image.Image:
    background = rng.choice(BACKGROUNDS)
    image = Image.new("RGB", (SIDE, SIDE), background)
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        colour = COLOURS[shape.colour]
        if "colour" in chosen:
            colour = _between(colour, rng.choice(list(COLOURS.values())), rng.uniform(0.2, 0.55))
        draw.polygon([(x * SIDE, y * SIDE) for x, y in _outline(shape)], fill=colour)
        if "hidden" in chosen:
            _hide(rng, draw, shape.box, background)
    return image


def _outline(shape: Shape) -> Iterator[tuple[float, float]]:
    """Corners that touch all four sides of its box."""
    corners = list(_OUTLINES[shape.kind]())
    left, top = (min(corner[axis] for corner in corners) for axis in (0, 1))
    wide, high = (max(corner[axis] for corner in corners) - low for axis, low in ((0, left), (1, top)))
    box = shape.box
    for x, y in corners:
        yield (
            box.x_min + (x - left) / wide * (box.x_max - box.x_min),
            box.y_min + (y - top) / high * (box.y_max - box.y_min),
        )


def _round(points: int, inner: float = 1.0) -> Iterator[tuple[float, float]]:
    for step in range(points):
        radius, angle = (inner if step % 2 else 1.0), 2 * math.pi * step / points
        yield radius * math.sin(angle), -radius * math.cos(angle)


_OUTLINES: dict[str, Callable[[], Iterator[tuple[float, float]]]] = {
    "circle": lambda: _round(48),
    "square": lambda: iter(((0, 0), (1, 0), (1, 1), (0, 1))),
    "triangle": lambda: iter(((0.5, 0), (1, 1), (0, 1))),
    "star": lambda: _round(10, 0.42),
}


def _between(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _hide(rng: random.Random, draw: ImageDraw.ImageDraw, box: Box, background: Colour) -> None:
    """Paint over a part of the box from one of its sides."""
    share = rng.uniform(0.15, 0.55)
    width, height = (box.x_max - box.x_min) * share, (box.y_max - box.y_min) * share
    part = rng.choice((
        Box(box.x_min, box.y_min, box.x_min + width, box.y_max),
        Box(box.x_max - width, box.y_min, box.x_max, box.y_max),
        Box(box.x_min, box.y_min, box.x_max, box.y_min + height),
        Box(box.x_min, box.y_max - height, box.x_max, box.y_max),
    ))  # fmt: skip
    draw.rectangle([side * SIDE for side in (part.x_min, part.y_min, part.x_max, part.y_max)], fill=background)


def _disturbed(rng: random.Random, image: Image.Image, chosen: frozenset[str]) -> Image.Image:
    if "blur" in chosen:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(3, 9)))
    if "noise" in chosen:
        numbers = np.random.default_rng(rng.getrandbits(32))
        noisy = np.asarray(image) + numbers.normal(0, rng.uniform(25, 80), (SIDE, SIDE, 3))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return image


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
