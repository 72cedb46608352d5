"""A plot of the training loss over steps, with a logarithmic axis for the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from training.data.lettering import font

_WIDTH, _HEIGHT, _MARGIN = 720, 400, 48
_INK, _FAINT, _LINE = (30, 30, 30), (225, 225, 225), (40, 70, 215)


def draw_curve(lines: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write a PNG file with the curve of ``loss`` over ``step``, which every line has."""
    image = Image.new("RGB", (_WIDTH, _HEIGHT), (255, 255, 255))
    canvas = ImageDraw.Draw(image)
    values = [math.log10(max(line["loss"], 1e-6)) for line in lines]
    low, high = min(values), max(values)
    low, high = low - 0.02, high + 0.02
    last = max(line["step"] for line in lines)
    for index in range(5):
        _draw_level(canvas, low + index * (high - low) / 4, low, high)
    points = [(_x(line["step"] / last), _y((value - low) / (high - low)))
              for line, value in zip(lines, values, strict=True)]  # fmt: skip
    canvas.line(points * (1 if len(points) > 1 else 2), fill=_LINE, width=2)
    caption = f"loss {lines[-1]['loss']:.3f} after {last:.0f} steps"
    canvas.text((_MARGIN, _HEIGHT - 30), caption, fill=_INK, font=font(16))
    image.save(path)


def _draw_level(canvas: ImageDraw.ImageDraw, level: float, low: float, high: float) -> None:
    height = _y((level - low) / (high - low))
    canvas.line([(_MARGIN, height), (_WIDTH - 16, height)], fill=_FAINT)
    canvas.text((4, height - 8), f"{10**level:.3g}", fill=_INK, font=font(14))


def _x(share: float) -> float:
    return _MARGIN + share * (_WIDTH - _MARGIN - 16)


def _y(share: float) -> float:
    return _HEIGHT - _MARGIN - share * (_HEIGHT - _MARGIN - 16)
