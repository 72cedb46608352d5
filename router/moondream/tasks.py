"""What a request of one of Moondream's routes means as a ``vlm.types.Task``, and where its fields are in the body.

The names in a ``Task`` and in ``Sampling`` are not those of Moondream's API: what a model says about ``task.labels`` is
said about ``object`` to whoever sent it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.moondream.schema import (
    CaptionBody,
    DetectBody,
    MoondreamBody,
    PointBody,
    QueryBody,
    SegmentBody,
    Settings,
    SpatialRefs,
)
from vlm.errors import InvalidRequest
from vlm.types import Box, Point, Sampling, Task

_PATHS = {
    "image": "image_url",
    "task.labels": "object",
    "task.length": "length",
    "task.max_objects": "settings.max_objects",
    "task.reasoning": "reasoning",
    "task.references": "spatial_refs",
    "task.region": "spatial_refs",
}
_TEXTS = ("prompt", "task.text")
_SAMPLING = ("max_tokens", "temperature", "top_p")


def task_of(body: MoondreamBody) -> Task:
    """The task of a body.

    Raises:
        InvalidRequest: A segmentation says neither by a name nor by a box what to segment.
    """
    max_objects = None if body.settings is None else body.settings.max_objects
    references = tuple(_references(getattr(body, "spatial_refs", None)))
    match body:
        case CaptionBody():
            return Task("caption", length=body.length or "normal", max_objects=max_objects)
        case QueryBody():
            return Task(
                "query",
                text=body.question,
                reasoning=bool(body.reasoning),
                references=references,
                max_objects=max_objects,
            )
        case SegmentBody():
            return _segmentation(body, references, max_objects)
        case PointBody():
            return Task("point", labels=(body.object,), references=references, max_objects=max_objects)
        case DetectBody():
            return Task("detect", labels=(body.object,), max_objects=max_objects)
    raise TypeError(type(body).__name__)


def sampling_of(settings: Settings | None) -> Sampling:
    """How tokens are chosen.

    Raises:
        InvalidRequest: A value is out of range, with its path in the body.
    """
    if settings is None:
        return Sampling()
    try:
        return Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature, top_p=settings.top_p)
    except InvalidRequest as error:
        raise InvalidRequest(f"settings.{error.message}", f"settings.{error.param}", error.code) from error


def path_of(name: str, task: Task) -> str:
    """The path in the body of what a model calls ``name``: a field of its ``task``, of the sampling, or the image."""
    if name in _TEXTS:
        return "question" if task.name == "query" else "object"
    return f"settings.{name}" if name in _SAMPLING else _PATHS.get(name, name)


def _segmentation(body: SegmentBody, references: tuple[Point | Box, ...], max_objects: int | None) -> Task:
    """A name is looked for; a single box without one is segmented itself."""
    if body.object is not None and body.object.strip():
        return Task("segment", text=body.object, references=references, max_objects=max_objects)
    match references:
        case (Box() as region,):
            return Task("segment", region=region, max_objects=max_objects)
    raise InvalidRequest(
        "object must say what to segment; it may be missing only where spatial_refs has a single box.",
        "object",
        "missing_required_parameter" if body.object is None else "invalid_value",
    )


def _references(refs: SpatialRefs | None) -> Iterator[Point | Box]:
    for ref in refs or ():
        yield _box(ref) if len(ref) == 4 else Point(*ref)


def _box(corners: Sequence[float]) -> Box:
    x_min, y_min, x_max, y_max = corners
    return Box(x_min, y_min, x_max, y_max)
