"""Stacks: two or three shapes, one above the other, so that only y tells which of them a label means.

The world has few of them. A model that generates x before y then learns to tell shapes apart by x alone, and finds the
same one of two stacked shapes whatever it is asked for.
"""

from __future__ import annotations

import random

from training.data.scenes import Scene, Shape
from training.data.shapes import COLOURS, KINDS
from training.data.world import Draft
from vlm.types import Box

_SPREAD = 0.012
"""Maximum distance of a centre from the vertical axis of the stack, as a share of the image's width."""


def stack(seed: int, size: tuple[int, int] | None = None) -> Scene:
    """The stack of a seed, always the same one; its shapes are in the order from top to bottom.

    With a ``size`` (width, height) it is laid out for images of that size, and is another one.
    """
    rng = random.Random(f"stack {seed}")
    count = rng.choices((2, 3), (75, 25))[0]
    while True:
        draft = Draft(rng, size)
        shapes = _column(draft, count)
        if shapes is not None:
            return draft.finished(draft.background(), shapes, ())


def _column(draft: Draft, count: int) -> list[Shape] | None:
    """Shapes with different names and regions along a vertical axis, or None if they do not fit."""
    rng = draft.rng
    axis = rng.uniform(0.12, 0.88)
    shapes: list[Shape] = []
    for _ in range(count):
        size = rng.choice(("small", "large")) if count == 2 else "small"
        for _ in range(20):
            box = _moved(draft.random_box(size), axis + rng.uniform(-_SPREAD, _SPREAD))
            shape = draft.shape(rng.choice(KINDS), rng.choice(list(COLOURS)), size, box)
            names = {fact for other in shapes for fact in (other.name, other.region)}
            if box.x_min > 0.01 and box.x_max < 0.99 and not {shape.name, shape.region} & names and draft.reserve(box):
                shapes.append(shape)
                break
        else:
            return None
    return sorted(shapes, key=lambda shape: shape.centre.y)


def _moved(box: Box, axis: float) -> Box:
    half = (box.x_max - box.x_min) / 2
    return Box(axis - half, box.y_min, axis + half, box.y_max)
