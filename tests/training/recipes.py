"""Lessons on a handful of images, for the tests: every model at its real miniature size."""

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
from training.recipe import Lesson
from training.train import course_of
from training.trainer import Schedule, Trainer
from training.vision.transfer import Sight

_COUNT = 12


@cache
def images(side: int) -> RenderedImages:
    """The first few."""
    return RenderedImages([np.stack([squashed(draw(scene(seed), LONGEST), side) for seed in range(_COUNT)])])


@cache
def pages(side: int) -> RenderedImages:
    """The first few."""
    return RenderedImages([np.stack([squashed(draw(page(seed), LONGEST), side) for seed in range(2)])], page)


def batches(name: str, size: int = 3) -> Batches:
    """Small steps of a course."""
    course = course_of(name)
    words = Source(pages(course.side), 1) if course.pages else None
    return Batches(Source(images(course.side), size), words, course.mean, course.std, course.name)


@cache
def sight() -> Sight:
    """A vision encoder that has seen nothing yet."""
    held = {name: value.detach() for name, value in begun("sight").module.named_parameters()}
    encoder, head = (
        {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
        for prefix in ("model.", "head.")
    )
    return Sight(encoder, head)


def begun(name: str) -> Lesson:
    """A lesson at its beginning."""
    course = course_of(name)
    return course.begin(batches(name), sight() if course.sighted else None)


def trainer(name: str, folder: Path, steps: int = 10) -> Trainer:
    """A run of a few small steps."""
    torch.set_num_threads(1)
    course = course_of(name)
    return Trainer(begun(name), batches(name), Schedule(course.rate, steps), folder, course.slow)
