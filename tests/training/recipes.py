"""Every recipe on a handful of images, with the model at the size of its miniature."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from training.data.batches import Batches, Source
from training.data.drawing import draw
from training.data.pages import page
from training.data.rendered import LONGEST, RenderedImages, squashed
from training.data.world import scene
from training.recipe import TrainableModel
from training.train import load_recipe
from training.trainer import Schedule, Trainer
from training.vision.transfer import VisionWeights

_COUNT = 12


@cache
def images(side: int) -> RenderedImages:
    """The first scenes."""
    return RenderedImages([np.stack([squashed(draw(scene(seed), LONGEST), side) for seed in range(_COUNT)])])


@cache
def pages(side: int) -> RenderedImages:
    """The first pages."""
    return RenderedImages([np.stack([squashed(draw(page(seed), LONGEST), side) for seed in range(2)])], page)


def batches(name: str, size: int = 3) -> Batches:
    """The data of a recipe, ``size`` scenes per step."""
    recipe = load_recipe(name)
    words = Source(pages(recipe.side), 1) if recipe.pages else None
    return Batches(Source(images(recipe.side), size), words, recipe.mean, recipe.std, recipe.seed or recipe.name)


@cache
def initial_vision() -> VisionWeights:
    """The weights of an untrained vision encoder."""
    tensors = {name: value.detach() for name, value in untrained("vision").module.named_parameters()}
    encoder, head = (
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in ("model.", "head.")
    )
    return VisionWeights(encoder, head)


def untrained(name: str) -> TrainableModel:
    """A model with its initial weights."""
    recipe = load_recipe(name)
    return recipe.build(batches(name), initial_vision() if recipe.pretrained_vision else None)


def trainer(name: str, folder: Path, steps: int = 10) -> Trainer:
    """A trainer of small steps."""
    torch.set_num_threads(1)
    recipe = load_recipe(name)
    return Trainer(
        untrained(name), batches(name), Schedule(recipe.learning_rate, steps), folder, recipe.slow_parameters
    )
