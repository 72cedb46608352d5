"""Test images of coloured shapes in the miniatures' world, plain ones and ones that are hard to read.

Scenes, drawing and captions are those of :mod:`training.data`. This module lays out the shapes and adds disturbances:
noise, blur, shapes that overlap, are partly hidden, of a mixed colour, far too small or large, or too many.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.data import sentences, shapes
from training.data.drawing import draw, png
from training.data.scenes import FLAT, Scene, Shape, middle
from training.data.shapes import Colour
from training.data.world import are_near
from vlm.types import Box

COLOURS: tuple[str, ...] = tuple(shapes.COLOURS)[:6]
KINDS: tuple[str, ...] = shapes.KINDS[:4]
SIZES: Mapping[str, tuple[float, float]] = {"small": (0.14, 0.2), "large": (0.28, 0.4)}
EXTREME_SIZES: Mapping[str, tuple[float, float]] = {"small": (0.05, 0.09), "large": (0.48, 0.62)}
DISTURBANCES = ("noise", "blur", "overlap", "hidden", "colour", "scale", "crowd")
SIDE = 192
"""Width and height of an image in pixels."""
MIN_DISTANCE = 0.06
"""Between the centres of two shapes, even if they may overlap."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A PNG image and its contents; no two shapes of a scene share their name."""

    image: bytes
    scene: Scene

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes from left to right."""
        return self.scene.shapes

    @property
    def caption(self) -> str:
        """A caption of the first three shapes, worded as in the miniatures' training."""
        first = replace(self.scene, shapes=self.scene.shapes[:3])
        return sentences.plain(sentences.caption(first))


def make_images(number: int, first: int = 0, *, hard: bool) -> list[LabelledImage]:
    """Images of consecutive seeds; ``hard`` ones have one or two disturbances each."""
    return [make_image(seed, hard=hard) for seed in range(first, first + number)]


def make_image(seed: int, *, hard: bool) -> LabelledImage:
    """The image of a seed, always the same one."""
    rng = random.Random(f"{seed} {hard}")  # noqa: S311  test images, not secrets
    chosen = frozenset(rng.sample(DISTURBANCES, rng.choice((1, 2)))) if hard else frozenset[str]()
    laid_out = _lay_out(rng, rng.randint(4, 5) if "crowd" in chosen else rng.randint(1, 3), chosen)
    scene, covers = _disturb_shapes(rng, laid_out, chosen)
    return LabelledImage(png(_disturb_pixels(rng, _cover(draw(scene), covers, scene.shade), chosen)), scene)


# Layout


def _lay_out(rng: random.Random, number: int, chosen: frozenset[str]) -> tuple[Shape, ...]:
    """Shapes at random positions that fit beside each other; starts again if too many attempts fail."""
    placed: list[Shape] = []
    for attempt in count(1):
        shape = _random_shape(rng, EXTREME_SIZES if "scale" in chosen else SIZES)
        if _fits(shape, placed, may_overlap="overlap" in chosen):
            placed.append(shape)
        if len(placed) == number:
            break
        if attempt % 50 == 0:
            placed = []
    return tuple(sorted(placed, key=lambda shape: (shape.centre.x, shape.centre.y)))


def _random_shape(rng: random.Random, sizes: Mapping[str, tuple[float, float]]) -> Shape:
    size = rng.choice(list(sizes))
    side, stretch = rng.uniform(*sizes[size]), math.sqrt(rng.uniform(0.85, 1.18))
    width, height = side * stretch, side / stretch
    x, y = rng.uniform(0.01, 0.99 - width), rng.uniform(0.01, 0.99 - height)
    kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
    return Shape(kind, colour, shapes.COLOURS[colour], size, Box(x, y, x + width, y + height))


def _fits(shape: Shape, others: Sequence[Shape], *, may_overlap: bool) -> bool:
    if any(shape.name == other.name or _distance(shape.box, other.box) < MIN_DISTANCE for other in others):
        return False
    return may_overlap or not any(are_near(shape.box, other.box) for other in others)


def _distance(one: Box, other: Box) -> float:
    first, second = middle(one), middle(other)
    return math.dist((first.x, first.y), (second.x, second.y))


# Disturbances


def _disturb_shapes(
    rng: random.Random, laid_out: Sequence[Shape], chosen: frozenset[str]
) -> tuple[Scene, Sequence[Box]]:
    """The scene, with mixed colours if chosen, and the boxes to paint over if parts of the shapes are to be hidden."""
    background = rng.choice(list(shapes.BACKGROUNDS))
    shaded, covers = [], []
    for shape in laid_out:
        if "colour" in chosen:
            other = shapes.COLOURS[rng.choice(COLOURS)]
            shaded.append(replace(shape, shade=_mixed(shape.shade, other, rng.uniform(0.2, 0.55))))
        else:
            shaded.append(shape)
        if "hidden" in chosen:
            covers.append(_part_of(rng, shape.box))
    return Scene(SIDE, SIDE, tuple(shaded), None, background, shapes.BACKGROUNDS[background], FLAT), covers


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _part_of(rng: random.Random, box: Box) -> Box:
    """A part of the box along one of its sides."""
    share = rng.uniform(0.15, 0.55)
    width, height = (box.x_max - box.x_min) * share, (box.y_max - box.y_min) * share
    return rng.choice((
        Box(box.x_min, box.y_min, box.x_min + width, box.y_max),
        Box(box.x_max - width, box.y_min, box.x_max, box.y_max),
        Box(box.x_min, box.y_min, box.x_max, box.y_min + height),
        Box(box.x_min, box.y_max - height, box.x_max, box.y_max),
    ))  # fmt: skip


def _cover(image: Image.Image, covers: Sequence[Box], colour: Colour) -> Image.Image:
    canvas = ImageDraw.Draw(image)
    for box in covers:
        canvas.rectangle([side * SIDE for side in (box.x_min, box.y_min, box.x_max, box.y_max)], fill=colour)
    return image


def _disturb_pixels(rng: random.Random, image: Image.Image, chosen: frozenset[str]) -> Image.Image:
    if "blur" in chosen:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(3, 9)))
    if "noise" in chosen:
        numbers = np.random.default_rng(rng.getrandbits(32))
        noisy = np.asarray(image) + numbers.normal(0, rng.uniform(25, 80), (SIDE, SIDE, 3))
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return image
