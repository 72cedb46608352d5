"""A task as the body has it, turned into a ``vlm.types.Task``: coordinates in pixels become normalised.

Whether a model offers the task, and which of its arguments it uses, is checked by the model's processor.
"""

from __future__ import annotations

from collections.abc import Callable

from router.asgi.validation import given_one
from router.conversation.fields import HAIR, Reference, Region, TaskBody
from vlm.errors import InvalidRequest
from vlm.types import Box, Point, Task

ImageSize = Callable[[], tuple[int, int]]
"""(width, height) of the upright image in pixels, read only if there are pixels to normalise."""

HAIR_PX = 1.0
"""How many pixels outside the image a location may be in any case; see :data:`~router.conversation.fields.HAIR`."""


def read_task(body: TaskBody, path: str, size: ImageSize) -> Task:
    """The task of ``body``, which is at ``path`` in the request.

    Raises:
        InvalidRequest: A shape is missing or given twice, has its corners exchanged, or is outside the image.
    """
    references = (_reference(one, f"{path}.references[{index}]", size) for index, one in enumerate(body.references))
    return Task(
        name=body.name,
        labels=tuple(body.labels),
        text=body.text,
        region=None if body.region is None else _box(body.region, f"{path}.region", size),
        length=body.length,
        max_objects=body.max_objects,
        reasoning=body.reasoning,
        references=tuple(references),
        threshold=body.threshold,
    )


def _reference(reference: Reference, path: str, size: ImageSize) -> Point | Box:
    name = _given(reference, path)
    if name.startswith("box"):
        return _box(reference, path, size)
    return Point(*_normalised(reference, name, path, size))


def _box(region: Region, path: str, size: ImageSize) -> Box:
    name = _given(region, path)
    box = Box(*_normalised(region, name, path, size))
    if box.x_min > box.x_max or box.y_min > box.y_max:
        where = f"{path}.{name}"
        raise InvalidRequest(f"{where} must be [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2.", where, "invalid_value")
    return box


def _given(region: Region, path: str) -> str:
    """The name of the one shape that is given."""
    return given_one(region, tuple(type(region).model_fields), path)


def _normalised(region: Region, name: str, path: str, size: ImageSize) -> list[float]:
    """The shape's numbers, x and y in turn, from 0 to 1. Those a hair outside the image are put on its edge."""
    values: list[float] = getattr(region, name)
    if not name.endswith("_px"):
        return values
    sides = size()
    shares = [value / sides[index % 2] for index, value in enumerate(values)]
    hairs = [max(HAIR, HAIR_PX / sides[index % 2]) for index in range(len(values))]
    if any(not -hair <= share <= 1 + hair for share, hair in zip(shares, hairs, strict=True)):
        where = f"{path}.{name}"
        raise InvalidRequest(
            f"{where} reaches outside the image, which is {sides[0]} x {sides[1]} pixels when upright.",
            where,
            "invalid_value",
        )
    return [min(max(share, 0.0), 1.0) for share in shares]
