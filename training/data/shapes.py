"""The kinds of shapes with their outlines in a unit square, and the palette of colours and backgrounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

Colour = tuple[int, int, int]
Corner = tuple[float, float]

COLOURS: Mapping[str, Colour] = MappingProxyType({
    "red": (220, 35, 35), "green": (40, 160, 60), "blue": (40, 70, 215), "yellow": (240, 215, 40),
    "purple": (140, 50, 170), "orange": (245, 135, 25), "pink": (245, 130, 190), "brown": (125, 75, 40),
})  # fmt: skip
BACKGROUNDS: Mapping[str, Colour] = MappingProxyType({
    "white": (248, 248, 248), "gray": (165, 165, 165), "black": (15, 15, 15), "beige": (225, 205, 170),
})  # fmt: skip


def _regular_polygon(count: int, phase: float = 0.0) -> tuple[Corner, ...]:
    angles = [phase + 2 * math.pi * index / count - math.pi / 2 for index in range(count)]
    return tuple((0.5 + math.cos(angle) / 2, 0.5 + math.sin(angle) / 2) for angle in angles)


def _star() -> tuple[Corner, ...]:
    """Ten corners, stretched so that they touch all four sides of the unit square."""
    radii = [1.0 if index % 2 == 0 else 0.42 for index in range(10)]
    angles = [index * math.pi / 5 - math.pi / 2 for index in range(10)]
    raw = [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]
    left, top = (min(corner[axis] for corner in raw) for axis in (0, 1))
    right, bottom = (max(corner[axis] for corner in raw) for axis in (0, 1))
    return tuple(((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in raw)


def _cross(arm: float = 0.32) -> tuple[Corner, ...]:
    low, high = arm, 1 - arm
    return (
        (low, 0), (high, 0), (high, low), (1, low), (1, high), (high, high),
        (high, 1), (low, 1), (low, high), (0, high), (0, low), (low, low),
    )  # fmt: skip


OUTLINES: Mapping[str, tuple[Corner, ...]] = MappingProxyType(
    {
        "circle": _regular_polygon(8),  # eight points of a circle: short enough to be written as a polygon
        "square": ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),
        "triangle": ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0)),
        "star": _star(),
        "cross": _cross(),
        "diamond": ((0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)),
    }
)
"""The corners of each kind within its box, clockwise from the top; both coordinates are from 0 to 1."""

KINDS = tuple(OUTLINES)
