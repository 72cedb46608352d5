"""Annotates an image with a grounding: boxes, quads, polygons and points with their labels. PIL only.

Owns the colours, the line widths and the positions of labels. Knows nothing of models, requests or files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import ceil
from typing import cast

from PIL import Image, ImageDraw, ImageFont

from vlm.types import Box, Detection, Grounding, Point, Polygon

Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

# Bright, so that they show on dark images and under near-black text. On light images the dark edge of lines shows.
COLOURS: tuple[Colour, ...] = (
    (255, 82, 82),
    (64, 156, 255),
    (64, 204, 108),
    (255, 190, 40),
    (190, 120, 255),
    (38, 208, 212),
    (255, 128, 196),
    (176, 206, 48),
    (255, 146, 64),
    (152, 164, 255),
)
_DARK: Colour = (18, 18, 20)
_FILL_OPACITY = 70


def draw(image: Image.Image, grounding: Grounding) -> Image.Image:
    """A copy of the upright image with every detection on it; equal labels have equal colours."""
    drawn = image.convert("RGB")
    canvas = _Canvas(drawn)
    names = list(dict.fromkeys(_caption(found) for found in grounding.detections))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    for found in grounding.detections:
        canvas.shape(found, colours[_caption(found)])
    for found in grounding.detections:  # after all shapes, so that no line is drawn over a label
        canvas.tag(found, colours[_caption(found)])
    return drawn


def _caption(found: Detection) -> str:
    return " ".join((found.label or found.text or "").split())


class _Canvas:
    """An image that is being drawn on, and the tags that already lie on it."""

    def __init__(self, image: Image.Image) -> None:
        self.width, self.height = image.size
        self.pen = ImageDraw.Draw(image, "RGBA")  # RGBA on an RGB image: half-transparent fills blend
        self.line = max(2, round(min(image.size) / 160))
        size = max(10, round(min(image.size) / 28))
        self.font = cast(
            ImageFont.FreeTypeFont, ImageFont.load_default(size)
        )  # with a size, it is never the bitmap font
        self.tags: list[Rectangle] = []

    def shape(self, found: Detection, colour: Colour) -> None:
        """Draw the most exact shape that the detection has."""
        if found.polygons is not None:
            for polygon in found.polygons:
                self._outline(polygon, colour, filled=True)
        elif found.quad is not None:
            self._outline(found.quad, colour)
        elif found.point is not None:
            self._dot(found.point, colour)
        elif found.box is not None:
            self._outline(_corners(found.box), colour)

    def tag(self, found: Detection, colour: Colour) -> None:
        """Write the detection's label on a plate, at the first free position: above, inside the top, below."""
        caption, anchor = self._fitted(_caption(found)), self._anchor(found)
        if not caption or anchor is None:
            return
        plate = self._free_plate(caption, anchor)
        self.tags.append(plate)
        self.pen.rectangle(plate, fill=colour, outline=_DARK)
        self.pen.text(
            (plate[0] + self.line + 1, (plate[1] + plate[3]) / 2), caption, fill=_DARK, font=self.font, anchor="lm"
        )

    def _outline(self, corners: Polygon, colour: Colour, *, filled: bool = False) -> None:
        pixels = [self._pixel(corner) for corner in corners]
        if filled and len(pixels) > 1:
            self.pen.polygon(pixels, fill=(*colour, _FILL_OPACITY))
        # The first two corners are repeated at the end, so that the joint at the first corner is rounded too.
        closed = [*pixels, *pixels[:2]]
        self.pen.line(closed, fill=_DARK, width=self.line + 2, joint="curve")
        self.pen.line(closed, fill=colour, width=self.line, joint="curve")

    def _dot(self, point: Point, colour: Colour) -> None:
        centre, radius = self._pixel(point), 2.0 * self.line
        self.pen.circle(centre, radius + 2, fill=_DARK)
        self.pen.circle(centre, radius + 1, fill=(255, 255, 255))
        self.pen.circle(centre, radius - 1, fill=colour)

    def _pixel(self, point: Point) -> tuple[float, float]:
        """The point in pixels, moved away from the image's edge by half the width of a line, so that none is cut."""
        edge = self.line / 2
        x = min(max(point.x * self.width, edge), self.width - 1 - edge)
        y = min(max(point.y * self.height, edge), self.height - 1 - edge)
        return max(0.0, x), max(0.0, y)

    def _anchor(self, found: Detection) -> Rectangle | None:
        if found.point is not None:
            (x, y), reach = self._pixel(found.point), 2.0 * self.line + 2
            return x - reach, y - reach, x + reach, y + reach
        if found.box is None:
            return None
        start, end = Point(found.box.x_min, found.box.y_min), Point(found.box.x_max, found.box.y_max)
        return (*self._pixel(start), *self._pixel(end))

    def _fitted(self, caption: str) -> str:
        """The caption, cut so that its plate is no wider than the image."""
        space = self.width - 2 * self.line - 3
        if self.font.getlength(caption) <= space:
            return caption
        kept = bisect_right(
            range(len(caption)), space, key=lambda end: ceil(self.font.getlength(f"{caption[:end]}..."))
        )
        return f"{caption[: kept - 1].rstrip()}..." if kept > 1 else ""

    def _free_plate(self, caption: str, anchor: Rectangle) -> Rectangle:
        width = self.font.getlength(caption) + 2 * self.line + 2
        height = sum(self.font.getmetrics()) + self.line
        left, top, right, bottom = anchor
        starts = (
            (left, top - height),
            (left, top),
            (left, bottom),
            (left, top + height),
            (right - width, top - height),
            (right - width, bottom - height),
        )
        plates = [self._kept_inside(x, y, width, height) for x, y in starts]
        inside = [plate for plate, (_, y) in zip(plates, starts, strict=True) if plate[1] == y]
        free = [plate for plate in inside if not _overlaps(plate, self.tags)]
        return (free or inside or plates)[0]

    def _kept_inside(self, x: float, y: float, width: float, height: float) -> Rectangle:
        left = max(0.0, min(x, self.width - 1 - width))
        top = max(0.0, min(y, self.height - 1 - height))
        return left, top, left + width, top + height


def _corners(box: Box) -> Polygon:
    return (
        Point(box.x_min, box.y_min),
        Point(box.x_max, box.y_min),
        Point(box.x_max, box.y_max),
        Point(box.x_min, box.y_max),
    )


def _overlaps(plate: Rectangle, others: Sequence[Rectangle]) -> bool:
    left, top, right, bottom = plate
    return any(left < x1 and x0 < right and top < y1 and y0 < bottom for x0, y0, x1, y1 in others)
