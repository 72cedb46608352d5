"""What a training step looks at: scenes and their pixels, the same for the same step of a run.

Owns the choice of seeds and the light noise on pixels. Does not know what is asked about an image.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.normalisation import Channels
from training.data.rendered import RenderedImages
from training.data.scenes import Scene


@dataclass(frozen=True)
class Batch:
    """A step's images, and the random numbers for whatever else it chooses.

    Attributes:
        scenes: What can be told of the first images.
        pages: What the others show, of which nothing is told.
        pixels: float32 ``[scenes + pages, 3, side, side]``, normalised.
    """

    scenes: Sequence[Scene]
    pages: Sequence[Scene]
    pixels: Tensor
    rng: random.Random

    @property
    def shown(self) -> Sequence[Scene]:
        """What all images show."""
        return [*self.scenes, *self.pages]


@dataclass(frozen=True)
class Source:
    """Drawn images, and how many of them a step looks at.

    The world has one nested scene in 25, too few to learn what lies within what; and one in four shows a single shape,
    from which neither letters are learnt nor which of several things is meant.

    Attributes:
        images: To choose from.
        count: Images a step.
        nested: So many of these show a shape within a shape.
        rich: So many show a word, or three shapes and more.
    """

    images: RenderedImages
    count: int
    nested: int = 0
    rich: int = 0

    def chosen(self, rng: random.Random) -> tuple[Sequence[Scene], Tensor]:
        """Scenes and pixels in 0..1 of one step."""
        seeds = rng.sample(range(len(self.images)), self.count - self.nested - self.rich)
        seeds += [self._seed(rng, _is_nested) for _ in range(self.nested)]
        seeds += [self._seed(rng, _is_rich) for _ in range(self.rich)]
        return [self.images.scene(seed) for seed in seeds], _bytes(self.images, seeds)

    def _seed(self, rng: random.Random, wanted: Callable[[Scene], bool]) -> int:
        while True:
            seed = rng.randrange(len(self.images))
            if wanted(self.images.scene(seed)):
                return seed


def _is_nested(scene: Scene) -> bool:
    return scene.inside


def _is_rich(scene: Scene) -> bool:
    return scene.word is not None or len(scene.shapes) > 2


@dataclass(frozen=True)
class Batches:
    """Steps of one run.

    Attributes:
        world: Images of scenes.
        pages: Images of pages of words, if any.
        mean, std: The model's normalisation.
        name: Of the run: another name, other choices.
    """

    world: Source
    pages: Source | None
    mean: Channels
    std: Channels
    name: str

    def step(self, number: int) -> Batch:
        """The images of a step."""
        rng = random.Random(f"{self.name} {number}")
        scenes, pixels = self.world.chosen(rng)
        pages: Sequence[Scene] = ()
        if self.pages:
            pages, words = self.pages.chosen(rng)
            pixels = torch.cat([pixels, words])
        noise = torch.Generator().manual_seed(rng.getrandbits(48))
        return Batch(scenes, pages, self._normalised(_noisy(pixels, noise)), rng)

    def sample(self, count: int) -> Tensor:
        """The world's first ``count`` images, or all if there are fewer, normalised and without noise."""
        known = self.world.images
        return self._normalised(_bytes(known, range(min(count, len(known)))))

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def _bytes(images: RenderedImages, seeds: Sequence[int]) -> Tensor:
    return torch.from_numpy(images.take(seeds)).permute(0, 3, 1, 2).float() / 255


def _noisy(pixels: Tensor, noise: torch.Generator) -> Tensor:
    """A little light, a little colour, and grain on every fourth image; more would blur what the background is."""
    count = len(pixels)
    light = torch.randn(count, 1, 1, 1, generator=noise) * 0.008 + torch.randn(count, 3, 1, 1, generator=noise) * 0.008
    grainy = (torch.rand(count, 1, 1, 1, generator=noise) < 0.25) * torch.rand(count, 1, 1, 1, generator=noise) * 0.04
    grain = torch.randn(pixels.shape, generator=noise) * grainy
    return (pixels + light + grain).clamp(0, 1)
