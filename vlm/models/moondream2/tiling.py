"""An image of any size as crops of one size: the whole image scaled down, and tiles of it at a higher resolution.

``image_crops.py`` in the repository of vikhyatk/moondream2. Needs numpy and PIL, but no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from vlm.checkpoint.config_reader import ConfigReader
from vlm.image.preprocess import Array, Bytes, planes
from vlm.models.moondream2.revisions import grid


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are cut.

    Attributes:
        crop: Side of a crop in pixels.
        margin: Pixels by which a tile overlaps its neighbour, on each side.
        max_tiles: Maximum number of tiles of one image.
    """

    crop: int
    margin: int
    max_tiles: int

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
        """(rows, columns) of tiles for an image of that size in pixels.

        As in the original, except for very long images (from about 11.7:1): there they can have any number of tiles,
        here the longer side has fewer, so that there are at most ``max_tiles``.
        """
        wide, high = width - 2 * self.margin, height - 2 * self.margin
        if wide <= self.stride or high <= self.stride:
            return 1, 1
        least_rows, least_columns = math.ceil(high / self.stride), math.ceil(wide / self.stride)
        if least_rows * least_columns > self.max_tiles:
            ratio = math.sqrt(self.max_tiles / (least_rows * least_columns))
            return self._within(math.floor(least_rows * ratio), math.floor(least_columns * ratio))
        rows = max(math.floor(math.sqrt(self.max_tiles * high / wide)), least_rows)
        columns = max(math.floor(math.sqrt(self.max_tiles * wide / high)), least_columns)
        return self._within(rows, columns)

    def crops(self, width: int, height: int) -> int:
        """Number of crops that the ViT sees of an image of that size: the whole image, and its tiles if several."""
        rows, columns = self.tiles(width, height)
        return 1 if rows * columns == 1 else 1 + rows * columns

    def _within(self, rows: int, columns: int) -> tuple[int, int]:
        rows, columns = max(1, rows), max(1, columns)
        if rows * columns <= self.max_tiles:
            return rows, columns
        return (rows, self.max_tiles // rows) if columns > rows else (self.max_tiles // columns, columns)

    def canvas(self, image: Image.Image) -> Bytes:
        """An upright RGB image as one array, uint8 ``[3, height, width]``, that all its crops are cut from.

        The upper part is the image resized to ``stride`` pixels for each tile and two margins. The lower part, of one
        crop's height, has the whole image at its left. An image of one tile has the lower part only, because the tile
        would be the same. So the size of the canvas tells the number of rows and columns of tiles.
        """
        overview = _resized(image, self.crop, self.crop)
        rows, columns = self.tiles(*image.size)
        if rows * columns == 1:
            return overview
        height, width = (count * self.stride + 2 * self.margin for count in (rows, columns))
        canvas = np.zeros((3, height + self.crop, width), dtype=np.uint8)
        canvas[:, :height] = _resized(image, width, height)
        canvas[:, height:, : self.crop] = overview
        return canvas


def _resized(image: Image.Image, width: int, height: int) -> Bytes:
    return planes(image.resize((width, height), Image.Resampling.LANCZOS))


@cache
def pixel_table() -> Array:
    """The value in -1..1 of each of the 256 bytes, float32 ``[3, 256]``: each step is rounded to bfloat16."""
    scaled = _bfloat16(np.arange(256, dtype=np.float32) / np.float32(255))
    return np.tile(_bfloat16(_bfloat16(scaled - np.float32(0.5)) / np.float32(0.5)), (3, 1))


def _bfloat16(values: Array) -> Array:
    """Values rounded to bfloat16 (the upper half of a float32), ties to even."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)
