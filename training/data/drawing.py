"""Draws a scene with PIL: anti-aliased, at any size, and always the same pixels for the same scene and size."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageDraw

from training.data.lettering import font, ink
from training.data.scenes import Scene, Shape, Texture, Word

_FINE = 160
"""Images with fewer pixels a side are drawn at three times their size and reduced, larger ones at twice."""


def draw(scene: Scene, longest: int | None = None) -> Image.Image:
    """An RGB image of the scene's own size, or smaller if a side would be longer than ``longest`` pixels."""
    shrink = 1.0 if longest is None else min(1.0, longest / max(scene.width, scene.height))
    width, height = max(1, round(scene.width * shrink)), max(1, round(scene.height * shrink))
    factor = 3 if max(width, height) < _FINE else 2
    canvas = Image.new("RGB", (width * factor, height * factor), scene.shade)
    pen = ImageDraw.Draw(canvas)
    for shape in scene.shapes:
        _draw_shape(pen, shape, canvas.size)
    for word in scene.words:
        _draw_word(pen, word, canvas.size)
    return _textured(canvas.reduce(factor), scene.texture)


def png(image: Image.Image) -> bytes:
    """The image as a PNG file, compressed for speed."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _draw_shape(pen: ImageDraw.ImageDraw, shape: Shape, size: tuple[int, int]) -> None:
    width, height = size
    if shape.kind == "circle":
        box = shape.box
        pen.ellipse(
            (box.x_min * width, box.y_min * height, box.x_max * width - 1, box.y_max * height - 1), fill=shape.shade
        )
        return
    pen.polygon([(point.x * width - 0.5, point.y * height - 0.5) for point in shape.polygon], fill=shape.shade)


def _draw_word(pen: ImageDraw.ImageDraw, word: Word, size: tuple[int, int]) -> None:
    width, height = size
    pixels = max(1, round(word.em * math.sqrt(width * height)))
    black = ink(word.text, word.stroke)
    pen.text(
        (word.box.x_min * width - black.left * pixels, word.box.y_min * height - black.top * pixels),
        word.text,
        fill=(12, 12, 12) if word.dark else (244, 244, 244),
        font=font(pixels),
        stroke_width=word.stroke * pixels,
    )


def _textured(image: Image.Image, texture: Texture) -> Image.Image:
    if not (any(texture.slope) or texture.stripes or texture.grain):
        return image
    width, height = image.size
    across, down = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    levels = texture.slope[0] * across[None, :] + texture.slope[1] * down[:, None]
    if texture.stripes:
        levels = levels + texture.stripes * np.sign(
            np.sin(texture.stripe_count * math.pi * (across[None] + down[:, None]))
        )
    if texture.grain:
        rng = np.random.default_rng(texture.seed)
        levels = levels + texture.grain * rng.standard_normal((height, width), dtype=np.float32)
    pixels = np.asarray(image, dtype=np.float32) + levels[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
