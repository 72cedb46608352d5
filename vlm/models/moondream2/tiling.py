"""An image of any size as crops of one size: all of it small, and tiles of it large. numpy and PIL only.

Owns how many tiles an image gets, and the canvas on which they travel. Does not know what is seen in them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from vlm.checkpoint.config_reader import ConfigReader
from vlm.models.moondream2.config import grid

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are cut.

    Attributes:
        crop: Side of a crop in pixels.
        margin: Pixels by which a tile reaches over the part that is its own, on each side.
        most: Most tiles of one image.
    """

    crop: int
    margin: int
    most: int

    @classmethod
    def of(cls, vision: ConfigReader) -> Tiling:
        """From config.json's ``vision``. Raises CheckpointError for sizes that do not fit together."""
        patch = vision.integer("crop_size") // grid(vision)
        return cls(vision.integer("crop_size"), vision.integer("overlap_margin") * patch, vision.integer("max_crops"))

    @property
    def stride(self) -> int:
        """Pixels from one tile to the next."""
        return self.crop - 2 * self.margin

    def tiles(self, width: int, height: int) -> tuple[int, int]:
        """(rows, columns) for a picture of that size in pixels.

        As the original does it, but for very long pictures (from about 11.7:1 on): there they can have any number of
        tiles, here the longer side has fewer, so that ``most`` holds.
        """
        wide, high = width - 2 * self.margin, height - 2 * self.margin
        if wide <= self.stride or high <= self.stride:
            return 1, 1
        least_rows, least_columns = math.ceil(high / self.stride), math.ceil(wide / self.stride)
        if least_rows * least_columns > self.most:
            ratio = math.sqrt(self.most / (least_rows * least_columns))
            return self._within(math.floor(least_rows * ratio), math.floor(least_columns * ratio))
        rows = max(math.floor(math.sqrt(self.most * high / wide)), least_rows)
        columns = max(math.floor(math.sqrt(self.most * wide / high)), least_columns)
        return self._within(rows, columns)

    def _within(self, rows: int, columns: int) -> tuple[int, int]:
        rows, columns = max(1, rows), max(1, columns)
        if rows * columns <= self.most:
            return rows, columns
        return (rows, self.most // rows) if columns > rows else (self.most // columns, columns)

    def canvas(self, image: Image.Image) -> Bytes:
        """An upright RGB image as uint8 ``[height, width, 3]``: what the tiles are cut from, and all of it below.

        The upper part is the image squashed to ``stride`` pixels for each tile, and two margins; the lower part, of
        one crop's height, holds the whole image at its left. An image of one tile has the lower part only, for the
        tile would be the same. So the size of the canvas says how many rows and columns of tiles it has.
        """
        overview = _squashed(image, self.crop, self.crop)
        rows, columns = self.tiles(*image.size)
        if rows * columns == 1:
            return overview
        height, width = (count * self.stride + 2 * self.margin for count in (rows, columns))
        canvas = np.zeros((height + self.crop, width, 3), dtype=np.uint8)
        canvas[:height] = _squashed(image, width, height)
        canvas[height:, : self.crop] = overview
        return canvas


def _squashed(image: Image.Image, width: int, height: int) -> Bytes:
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def normalised(canvas: Bytes) -> Array:
    """uint8 ``[height, width, 3]`` to float32 ``[3, height, width]`` in -1..1, rounded to bfloat16 at every step."""
    table = _table()
    out = np.empty((3, *canvas.shape[:2]), dtype=np.float32)
    for channel in range(3):
        np.take(table, canvas[:, :, channel], out=out[channel])
    return out


@cache
def _table() -> Array:
    """The result for each of the 256 bytes."""
    scaled = _bfloat16(np.arange(256, dtype=np.float32) / np.float32(255))
    return _bfloat16(_bfloat16(scaled - np.float32(0.5)) / np.float32(0.5))


def _bfloat16(values: Array) -> Array:
    """Rounded to bfloat16, the upper half of a float32, ties to even."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)
