"""Images of scenes, rendered once into memory-mapped files near the size that the models read.

Drawing takes longer than a small model needs to look at the result, so that training never draws. Does not know what a
model makes of the pixels.
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
from training.data.world import scene

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

SHARD = 10_000
"""Images in a file; a file is complete or absent, so that an interruption costs one file at most."""

LONGEST = 208
"""Training images are drawn with at most so many pixels a side, then squashed as a processor would."""


IMAGES, PAGES = "images", "pages"

_remembered = lru_cache(maxsize=200_000)  # a run sees every scene several times
_SCENES: Mapping[str, Callable[[int], Scene]] = {IMAGES: _remembered(scene), PAGES: _remembered(page)}


@dataclass(frozen=True)
class RenderedImages:
    """Squashed images of the seeds from 0 on.

    Attributes:
        shards: ``[images, side, side, 3]`` bytes a file, all files of one length.
        scene: What a seed's image shows.
    """

    shards: Sequence[Pixels]
    scene: Callable[[int], Scene] = _SCENES[IMAGES]

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def take(self, seeds: Sequence[int]) -> Pixels:
        """The images of these seeds, ``[len(seeds), side, side, 3]``."""
        size = len(self.shards[0])
        return np.stack([self.shards[seed // size][seed % size] for seed in seeds])


def open_images(
    folder: Path, side: int, shards: int, report: Callable[[str], None], kind: str = IMAGES
) -> RenderedImages:
    """The first ``shards`` files of images with ``side`` pixels a side, rendered where they are missing.

    ``kind``: ``IMAGES`` of the world, or ``PAGES`` of words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{kind}-{side}-{number:03d}.npy" for number in range(shards)]
    for number, path in enumerate(paths):
        if not path.exists():
            report(f"drawing {kind} {number * SHARD} to {(number + 1) * SHARD}")
            _render(path, side, number * SHARD, _SCENES[kind])
    return RenderedImages([np.load(path, mmap_mode="r") for path in paths], _SCENES[kind])


def squashed(image: Image.Image, side: int) -> Pixels:
    """As the models' processors do it: bicubic, without keeping the aspect ratio."""
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def _render(path: Path, side: int, first: int, shown: Callable[[int], Scene]) -> None:
    partial = path.with_suffix(".partial")
    out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(SHARD, side, side, 3))
    for index in range(SHARD):
        out[index] = squashed(draw(shown(first + index), LONGEST), side)
    out.flush()
    partial.rename(path)
