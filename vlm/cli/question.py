"""The question that is asked about every image, and how it becomes a request about one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlm.errors import InvalidImage, InvalidRequest
from vlm.image.scan import upright_size
from vlm.types import Box, Point, Request, Sampling, Task

Numbers = tuple[float, ...]
"""The two numbers of a point or the four of a box, as typed: normalised, or in pixels if any is above 1."""


@dataclass(frozen=True, slots=True)
class Question:
    """The question about every image; ``region`` and ``references`` as they were typed, normalised or in pixels."""

    prompt: str
    task: Task | None
    sampling: Sampling
    region: Numbers | None = None
    references: tuple[Numbers, ...] = ()

    def about(self, image: bytes | None) -> Request:
        """The question about one encoded image, or about none.

        Raises:
            InvalidImage: The image cannot be read, or is smaller than a location in pixels.
            InvalidRequest: A location is in pixels, but there is no image.
        """
        task = self.task
        if task is not None and self.region is not None:
            task = replace(task, region=_box(normalised(self.region, image, "--region")))
        if task is not None and self.references:
            given = (normalised(numbers, image, "--reference") for numbers in self.references)
            task = replace(task, references=tuple(_box(one) if len(one) == 4 else Point(*one) for one in given))
        return Request(image, self.prompt, task, self.sampling)

    def without_pixels(self) -> Question:
        """The same question with stand-ins for locations in pixels, which need the size of an image."""

        def stand_in(numbers: Numbers) -> Numbers:
            return (0.25, 0.25, 0.75, 0.75)[: len(numbers)] if max(numbers) > 1 else numbers

        region = None if self.region is None else stand_in(self.region)
        return replace(self, region=region, references=tuple(map(stand_in, self.references)))


def normalised(numbers: Numbers, image: bytes | None, option: str) -> Numbers:
    """``x, y`` or ``x1, y1, x2, y2`` from 0 to 1; any value above 1 means that all of them are pixels."""
    if max(numbers) <= 1:
        return numbers
    if image is None:
        raise InvalidRequest(f"{option} in pixels needs an image; without one, its numbers are from 0 to 1")
    width, height = upright_size(image)
    if max(numbers[0::2]) > width or max(numbers[1::2]) > height:
        raise InvalidImage(f"{option} reaches outside the image of {width} x {height} pixels")
    return tuple(value / side for value, side in zip(numbers, (width, height) * 2, strict=False))


def _box(numbers: Numbers) -> Box:
    x_min, y_min, x_max, y_max = numbers
    return Box(x_min, y_min, x_max, y_max)
