"""The typeface of the world: the one in Pillow, so that a seed gives the same image on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from PIL import ImageFont

_RULER = 256
"""Letters are measured at this font size and scaled, because hinting moves their edges at small sizes."""

_DARK = [255 * (level > 127) for level in range(256)]


@dataclass(frozen=True, slots=True)
class Extent:
    """A rectangle around a word in units of the font size: its corner relative to the anchor, its width and height."""

    left: float
    top: float
    width: float
    height: float


@cache
def font(pixels: int) -> ImageFont.FreeTypeFont:
    """The typeface at a size in pixels."""
    loaded = ImageFont.load_default(size=pixels)
    assert isinstance(loaded, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return loaded


def room(text: str, stroke: float) -> Extent:
    """The extent of ``text`` in a line, with a ``stroke`` (in units of the font size) around every letter."""
    return _extent(font(_RULER).getbbox(text, stroke_width=stroke * _RULER))


def ink(text: str, stroke: float) -> Extent:
    """The extent of the inked pixels: smaller than :func:`room`, which includes the space beside letters."""
    mask, (left, top) = font(_RULER).getmask2(text, stroke_width=stroke * _RULER)
    inner = mask.point(_DARK, "L").getbbox()
    assert inner is not None, "a word has inked pixels"
    return _extent((inner[0] + left, inner[1] + top, inner[2] + left, inner[3] + top))


def _extent(box: tuple[float, float, float, float]) -> Extent:
    left, top, right, bottom = (side / _RULER for side in box)
    return Extent(left, top, right - left, bottom - top)


def letter_centres(text: str) -> tuple[float, ...]:
    """The centre of every letter, from the left edge of the word in units of the word's width."""
    ends = [font(_RULER).getlength(text[: index + 1]) for index in range(len(text))]
    starts = [0.0, *ends[:-1]]
    return tuple((start + end) / 2 / ends[-1] for start, end in zip(starts, ends, strict=True))
