"""The images of all tests: one palette, one way to encode, and a small seeded world of coloured shapes."""

from __future__ import annotations

import base64
import io
import random
from functools import cache
from typing import Any

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 35, 35), "green": (40, 160, 60), "blue": (40, 70, 215), "yellow": (240, 215, 40),
}  # fmt: skip
BACKGROUNDS = ((250, 250, 250), (165, 165, 165), (15, 15, 15), (225, 205, 170))


# Encoding


def encoded(image: Image.Image, image_format: str = "PNG", **settings: Any) -> bytes:
    """The image as a file; ``settings`` are those of Pillow's ``save`` (``exif``, ``save_all``, ...)."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **settings)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    return encoded(image, "PNG")


def data_url(data: bytes, media: str = "image/png") -> str:
    """The file as clients send it."""
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def exif_of(orientation: int) -> Image.Exif:
    """Metadata that says how the camera was held (1 to 8; from 5 on the image lies on its side)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# Images that depend on their size alone


def plain(width: int = 640, height: int = 480, image_format: str = "PNG", colour: Colour = COLOURS["red"]) -> bytes:
    """An image of one colour, as a file."""
    return encoded(Image.new("RGB", (width, height), colour), image_format)


def oriented(orientation: int, width: int = 640, height: int = 480) -> bytes:
    """A JPEG of ``width`` x ``height`` as it is stored, with an EXIF orientation."""
    return encoded(Image.new("RGB", (width, height)), "JPEG", exif=exif_of(orientation))


def one_shape(width: int = 120, height: int = 80) -> Image.Image:
    """A red ellipse in the upper left quarter of a light image."""
    image = Image.new("RGB", (width, height), BACKGROUNDS[0])
    ImageDraw.Draw(image).ellipse((width // 12, height // 8, width // 2, height // 2), fill=COLOURS["red"])
    return image


def halves(width: int = 24, height: int = 16) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), COLOURS["blue"])
    ImageDraw.Draw(image).rectangle((0, 0, width // 2 - 1, height), fill=COLOURS["red"])
    return image


def hand_drawn(width: int = 640, height: int = 480) -> bytes:
    """A red circle left of a blue square, scaled from 640x480, as a PNG file."""
    x, y = width / 640, height / 480
    image = Image.new("RGB", (width, height), BACKGROUNDS[0])
    draw = ImageDraw.Draw(image)
    draw.ellipse((75 * x, 135 * y, 265 * x, 325 * y), fill=COLOURS["red"])
    draw.rectangle((390 * x, 150 * y, 560 * x, 320 * y), fill=COLOURS["blue"])
    return png(image)


# Images that follow from a seed


@cache
def scene(seed: int) -> bytes:
    """One to three shapes on a plain background, of a size and an aspect ratio that the seed decides."""
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
    """That many scenes, of consecutive seeds from ``first`` on."""
    return [scene(first + index) for index in range(count)]
