"""What a training step looks at: scenes and their pixels, the same for the same step of a run.

Owns the choice of seeds and the light noise on pixels. Does not know what is asked about a picture.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from miniatures.normalisation import Channels
from miniatures.pictures import Pictures
from miniatures.scenes import Scene
from miniatures.world import scene


@dataclass(frozen=True)
class Batch:
    """A step's pictures, and the random numbers for whatever else it chooses."""

    scenes: Sequence[Scene]
    pixels: Tensor
    rng: random.Random


@dataclass(frozen=True)
class Batches:
    """Steps of one run.

    Attributes:
        pictures: What there is to choose from.
        size: Pictures a step.
        mean, std: The model's normalisation.
        name: Of the run: another name, other choices.
    """

    pictures: Pictures
    size: int
    mean: Channels
    std: Channels
    name: str

    def step(self, number: int) -> Batch:
        """The pictures of a step: ``pixels`` is float32 ``[size, 3, side, side]``, normalised."""
        rng = random.Random(f"{self.name} {number}")
        seeds = rng.sample(range(len(self.pictures)), self.size)
        noise = torch.Generator().manual_seed(rng.getrandbits(48))
        pixels = self._normalised(_noisy(self._bytes(seeds), noise))
        return Batch([known_scene(seed) for seed in seeds], pixels, rng)

    def sample(self, count: int) -> Tensor:
        """The first ``count`` pictures, or all if there are fewer, normalised and without noise."""
        return self._normalised(self._bytes(range(min(count, len(self.pictures)))))

    def _bytes(self, seeds: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.pictures.take(seeds)).permute(0, 3, 1, 2).float() / 255

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


@lru_cache(maxsize=200_000)
def known_scene(seed: int) -> Scene:
    """The scene of a seed, remembered: a run sees each several times."""
    return scene(seed)


def _noisy(pixels: Tensor, noise: torch.Generator) -> Tensor:
    """A little light, a little colour, and grain on every fourth picture; more would blur what the background is."""
    count = len(pixels)
    light = torch.randn(count, 1, 1, 1, generator=noise) * 0.008 + torch.randn(count, 3, 1, 1, generator=noise) * 0.008
    grainy = (torch.rand(count, 1, 1, 1, generator=noise) < 0.25) * torch.rand(count, 1, 1, 1, generator=noise) * 0.04
    grain = torch.randn(pixels.shape, generator=noise) * grainy
    return (pixels + light + grain).clamp(0, 1)
