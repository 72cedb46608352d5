"""Images of scenes, rendered once into memory-mapped files at the size that the models read.

Drawing an image takes longer than a small model's training step on it, so training only reads these files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.drawing import draw
from training.data.pages import page
from training.data.scenes import Scene
from training.data.stacks import stack
from training.data.world import scene

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

SHARD = 10_000
"""Images per file. A file is complete or absent, so that an interruption loses at most one file."""

LONGEST = 208
"""Images are drawn with at most this many pixels a side, then resized to a square as a processor does."""

IMAGES, PAGES, STACKS = "images", "pages", "stacks"

_cached = lru_cache(maxsize=200_000)  # a run uses every scene several times
_SCENES: Mapping[str, Callable[[int], Scene]] = {IMAGES: _cached(scene), PAGES: _cached(page), STACKS: _cached(stack)}


@dataclass(frozen=True)
class RenderedImages:
    """Square images of the seeds from 0 on.

    Attributes:
        shards: uint8 ``[images, side, side, 3]`` for each file, all of the same length.
        scene: The contents of a seed's image.
    """

    shards: Sequence[Pixels]
    scene: Callable[[int], Scene] = _SCENES[IMAGES]

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def read(self, seeds: Sequence[int]) -> Pixels:
        """The images of these seeds: uint8 ``[len(seeds), side, side, 3]``."""
        size = len(self.shards[0])
        return np.stack([self.shards[seed // size][seed % size] for seed in seeds])


def open_images(
    folder: Path, side: int, shards: int, report: Callable[[str], None], kind: str = IMAGES
) -> RenderedImages:
    """Open the first ``shards`` files of images with ``side`` pixels a side; render those that are missing.

    ``kind``: ``IMAGES`` of scenes, ``PAGES`` of words, or ``STACKS`` of shapes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{kind}-{side}-{number:03d}.npy" for number in range(shards)]
    for number, path in enumerate(paths):
        if not path.exists():
            report(f"rendering {kind} {number * SHARD} to {(number + 1) * SHARD}")
            _render(path, side, number * SHARD, _SCENES[kind])
    return RenderedImages([np.load(path, mmap_mode="r") for path in paths], _SCENES[kind])


def squashed(image: Image.Image, side: int) -> Pixels:
    """Resize as the models' processors do: bicubic, without keeping the aspect ratio."""
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def _render(path: Path, side: int, first: int, scene_of: Callable[[int], Scene]) -> None:
    partial = path.with_suffix(".partial")
    out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(SHARD, side, side, 3))
    for index in range(SHARD):
        out[index] = squashed(draw(scene_of(first + index), LONGEST), side)
    out.flush()
    partial.rename(path)
