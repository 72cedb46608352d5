"""The batch of a training step: scenes and their pixels, which follow from the number of the step.

Chooses the seeds of the scenes and adds light noise to the pixels.
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
    """The images of a step, and the random numbers for whatever else it chooses.

    Attributes:
        scenes: Contents of the first images, from which training examples are made.
        pages: Contents of the other images, which only the grid head is trained on.
        pixels: float32 ``[scenes + pages, 3, side, side]``, normalised.
    """

    scenes: Sequence[Scene]
    pages: Sequence[Scene]
    pixels: Tensor
    rng: random.Random

    @property
    def all_scenes(self) -> Sequence[Scene]:
        """The contents of all images, in their order."""
        return [*self.scenes, *self.pages]


@dataclass(frozen=True)
class Source:
    """Rendered images, and how many of them a step takes.

    Some kinds of scenes are rare among the seeds, so that a step takes a fixed number of them: one scene in 25 has a
    shape within another, which is too few to learn that relation, and one in four has a single shape, which teaches
    neither letters nor which of several things a phrase means.

    Attributes:
        images: The images to choose from.
        count: Images per step.
        nested: How many of them show a shape within another.
        rich: How many of them show a word, or three or more shapes.
    """

    images: RenderedImages
    count: int
    nested: int = 0
    rich: int = 0

    def sample(self, rng: random.Random) -> tuple[Sequence[Scene], Tensor]:
        """The scenes of one step, and their pixels: float32 ``[count, 3, side, side]`` in 0..1."""
        seeds = rng.sample(range(len(self.images)), self.count - self.nested - self.rich)
        seeds += [self._seed(rng, _is_nested) for _ in range(self.nested)]
        seeds += [self._seed(rng, _is_rich) for _ in range(self.rich)]
        return [self.images.scene(seed) for seed in seeds], _pixels(self.images, seeds)

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
    """The batches of a training run.

    Attributes:
        world: Images of scenes.
        pages: Images of pages of words, if any.
        mean, std: The model's normalisation of pixels, per channel.
        seed: All random choices follow from this text and the number of the step.
        stacks: Images of stacked shapes, if any; their scenes are told of like the world's.
    """

    world: Source
    pages: Source | None
    mean: Channels
    std: Channels
    seed: str
    stacks: Source | None = None

    def step(self, number: int) -> Batch:
        """The batch of a step."""
        rng = random.Random(f"{self.seed} {number}")
        scenes, pixels = self.world.sample(rng)
        if self.stacks:
            stacked, more = self.stacks.sample(rng)
            scenes, pixels = [*scenes, *stacked], torch.cat([pixels, more])
        pages: Sequence[Scene] = ()
        if self.pages:
            pages, words = self.pages.sample(rng)
            pixels = torch.cat([pixels, words])
        noise = torch.Generator().manual_seed(rng.getrandbits(48))
        return Batch(scenes, pages, self._normalised(_noisy(pixels, noise)), rng)

    def first_images(self, count: int) -> Tensor:
        """The first ``count`` images, or all if there are fewer, normalised and without noise: for statistics."""
        images = self.world.images
        return self._normalised(_pixels(images, range(min(count, len(images)))))

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def _pixels(images: RenderedImages, seeds: Sequence[int]) -> Tensor:
    return torch.from_numpy(images.read(seeds)).permute(0, 3, 1, 2).float() / 255


def _noisy(pixels: Tensor, noise: torch.Generator) -> Tensor:
    """Vary brightness and colour slightly, and add grain to every fourth image; more would disguise the background."""
    count = len(pixels)
    light = torch.randn(count, 1, 1, 1, generator=noise) * 0.008 + torch.randn(count, 3, 1, 1, generator=noise) * 0.008
    grainy = (torch.rand(count, 1, 1, 1, generator=noise) < 0.25) * torch.rand(count, 1, 1, 1, generator=noise) * 0.04
    grain = torch.randn(pixels.shape, generator=noise) * grainy
    return (pixels + light + grain).clamp(0, 1)
