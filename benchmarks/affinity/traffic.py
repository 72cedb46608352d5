"""Which image each request is about."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Literal

Kind = Literal["zipf", "talks"]

ZIPF = 1.0
"""The image of rank r is asked about in proportion to 1 / r**ZIPF."""

QUESTIONS = 4
"""Of a talk: so many questions about an image, and then never again."""

TALKS = 40
"""Talks that go on at once, for each replica."""


def zipf(images: int, seed: int) -> Iterator[int]:
    """Draws of ``images`` images, of which few are asked about often and many seldom."""
    rng = random.Random(seed)  # noqa: S311
    weights = list(itertools.accumulate(1 / rank**ZIPF for rank in range(1, images + 1)))
    while True:
        yield from rng.choices(range(images), cum_weights=weights, k=1000)


def talks(replicas: int, seed: int) -> Iterator[int]:
    """Questions of talks about an image each, in any order."""
    rng = random.Random(seed)  # noqa: S311
    numbers = itertools.count()
    left = [[next(numbers), rng.randint(1, QUESTIONS)] for _ in range(TALKS * replicas)]
    while True:
        talk = rng.choice(left)
        yield talk[0]
        talk[1] -= 1
        if not talk[1]:
            talk[:] = [next(numbers), QUESTIONS]


def image_bytes(number: int) -> bytes:
    """What stands for an image where none is decoded."""
    return b"image %d" % number
