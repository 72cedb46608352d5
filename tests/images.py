"""A small seeded world of coloured shapes for the tests, drawn with PIL and handed out as PNG bytes."""

from __future__ import annotations

import io
import random

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 35, 35), "green": (40, 160, 60), "blue": (40, 70, 215), "yellow": (240, 215, 40)}
BACKGROUNDS = ((250, 250, 250), (165, 165, 165), (15, 15, 15), (225, 205, 170))


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def hand_drawn(width: int = 640, height: int = 480) -> bytes:
    """A red circle left of a blue square, scaled from 640x480."""
    x, y = width / 640, height / 480
    image = Image.new("RGB", (width, height), BACKGROUNDS[0])
    draw = ImageDraw.Draw(image)
    draw.ellipse((75 * x, 135 * y, 265 * x, 325 * y), fill=COLOURS["red"])
    draw.rectangle((390 * x, 150 * y, 560 * x, 320 * y), fill=COLOURS["blue"])
    return png(image)


def scene(seed: int) -> bytes:
    """One to three shapes on a plain background, at a size and an aspect ratio of the seed's choice."""
    rng = random.Random(seed)
    width, height = rng.randint(64, 320), rng.randint(64, 320)
    image = Image.new("RGB", (width, height), rng.choice(BACKGROUNDS))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 3)):
        left, top = rng.uniform(0, 0.7) * width, rng.uniform(0, 0.7) * height
        right, bottom = left + rng.uniform(0.15, 0.3) * width, top + rng.uniform(0.15, 0.3) * height
        colour = rng.choice(list(COLOURS.values()))
        if rng.random() < 0.5:
            draw.ellipse((left, top, right, bottom), fill=colour)
        else:
            draw.rectangle((left, top, right, bottom), fill=colour)
    return png(image)


def scenes(count: int, first: int = 0) -> list[bytes]:
    """So many scenes, of consecutive seeds."""
    return [scene(first + index) for index in range(count)]
