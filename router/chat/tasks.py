"""A task as the body has it, turned into a ``vlm.types.Task``: places in pixels become normalised.

Owns the two frames of a place. Knows nothing of the rest of a request, nor of which model can do what.
"""

from __future__ import annotations

from collections.abc import Callable

from router.chat.schema import Reference, Region, TaskBody
from vlm.errors import InvalidRequest
from vlm.types import Box, Point, Task

Size = Callable[[], tuple[int, int]]
"""(width, height) of the upright image, read only where there are pixels to be placed."""


def read_task(body: TaskBody, path: str, size: Size) -> Task:
    """The task of ``body``, which stands at ``path`` of the request.

    Raises:
        InvalidRequest: A place is in no frame or in two, turned round, or outside the image.
    """
    references = (_place(one, f"{path}.references[{index}]", size) for index, one in enumerate(body.references))
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


def _place(place: Reference, path: str, size: Size) -> Point | Box:
    name = _only(place, path)
    return _box(place, path, size) if name.startswith("box") else Point(*_normalised(place, name, path, size))


def _box(region: Region, path: str, size: Size) -> Box:
    name = _only(region, path)
    box = Box(*_normalised(region, name, path, size))
    if box.x_min > box.x_max or box.y_min > box.y_max:
        where = f"{path}.{name}"
        raise InvalidRequest(f"{where} must be [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2.", where, "invalid_value")
    return box


def _only(place: Region, path: str) -> str:
    """The name of the one shape that is given."""
    given = [name for name in type(place).model_fields if getattr(place, name) is not None]
    if len(given) == 1:
        return given[0]
    names = ", ".join(type(place).model_fields)
    code = "invalid_value" if given else "missing_required_parameter"
    raise InvalidRequest(f"{path} needs exactly one of: {names}.", path, code)


def _normalised(place: Region, name: str, path: str, size: Size) -> list[float]:
    """The shape's numbers, x and y in turn, from 0 to 1."""
    values: list[float] = getattr(place, name)
    if not name.endswith("_px"):
        return values
    sides = size()
    if any(value > sides[index % 2] for index, value in enumerate(values)):
        where = f"{path}.{name}"
        raise InvalidRequest(
            f"{where} reaches outside the image, which is {sides[0]} x {sides[1]} pixels when upright.",
            where,
            "invalid_value",
        )
    return [value / sides[index % 2] for index, value in enumerate(values)]
