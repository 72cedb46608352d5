"""Grounding as other programs write it: the same objects in the shapes of well-known models, services and data sets.

Standard library only. The shapes are those of docs/api.md: each has its own names, order and unit, and nothing else
differs. No score is made up for a shape that always has one: it is null where the model gives none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vlm.types import Box, Detection, Grounding, Point, Polygon

Json = dict[str, Any]
Size = tuple[int, int]

_NORMALISED = 6
_PIXELS = 2
_SCORE_DIGITS = 4
_THOUSAND = (1000, 1000)


def render(grounding: Grounding, name: str) -> Any:
    """The objects of ``grounding`` in the format ``name``, which is a key of FORMATS; of several images, a list."""
    if not grounding.image_sizes:
        return FORMATS[name](grounding)
    return [FORMATS[name](_in_image(grounding, image)) for image in range(len(grounding.image_sizes))]


def _in_image(grounding: Grounding, image: int) -> Grounding:
    found = tuple(one for one in grounding.detections if one.image == image)
    return replace(grounding, image_size=grounding.image_sizes[image], image_sizes=(), detections=found)


def _moondream(grounding: Grounding) -> Json:
    """Moondream's API: normalised corners by name; points by themselves."""
    boxes = [{**_corners(found.box), "label": _name(found)} for found in grounding.detections if found.box]
    points = [
        {"x": round(found.point.x, _NORMALISED), "y": round(found.point.y, _NORMALISED), "label": _name(found)}
        for found in grounding.detections
        if found.point
    ]
    return {**({"objects": boxes} if boxes or not points else {}), **({"points": points} if points else {})}


def _corners(box: Box) -> Json:
    names = ("x_min", "y_min", "x_max", "y_max")
    return {name: round(getattr(box, name), _NORMALISED) for name in names}


def _qwen(grounding: Grounding) -> list[Json]:
    """Qwen 2.5 VL: whole pixels of the upright image."""
    return [_two_dimensional(found, _size(grounding)) for found in grounding.detections]


def _lmms_eval(grounding: Grounding) -> list[Json]:
    """lmms-eval's prompts for grounding: whole numbers from 0 to 1000."""
    return [_two_dimensional(found, _THOUSAND) for found in grounding.detections]


def _two_dimensional(found: Detection, size: Size) -> Json:
    label = {"label": _name(found)}
    if found.box is not None:
        return {"bbox_2d": [round(side) for side in _sides(found.box, size)], **label}
    return {"point_2d": [round(number) for number in _scaled(found.point, size)], **label}


def _roboflow(grounding: Grounding) -> Json:
    """Roboflow's inference: centre and size in pixels."""
    width, height = _size(grounding)
    return {
        "image": {"width": width, "height": height},
        "predictions": [_prediction(found, (width, height)) for found in grounding.detections],
    }


def _prediction(found: Detection, size: Size) -> Json:
    x_min, y_min, x_max, y_max = _sides(_extent(found), size)
    outline = _outline(found)
    points = [dict(zip("xy", _pixels(corner, size), strict=True)) for corner in outline]
    return {
        "x": round((x_min + x_max) / 2, _PIXELS),
        "y": round((y_min + y_max) / 2, _PIXELS),
        "width": round(x_max - x_min, _PIXELS),
        "height": round(y_max - y_min, _PIXELS),
        "confidence": _score(found),
        "class": _name(found),
        **({"points": points} if points else {}),
    }


def _coco(grounding: Grounding) -> list[Json]:
    """COCO's results: left, top, width and height in pixels, and outlines as flat lists of numbers."""
    return [_result(number, found, _size(grounding)) for number, found in enumerate(grounding.detections)]


def _result(number: int, found: Detection, size: Size) -> Json:
    x_min, y_min, x_max, y_max = _sides(_extent(found), size)
    shapes = found.polygons or ((found.quad,) if found.quad else ())
    return {
        "id": number,
        "image_id": found.image,
        "category": _name(found),
        "bbox": [round(number, _PIXELS) for number in (x_min, y_min, x_max - x_min, y_max - y_min)],
        "score": _score(found),
        **({"segmentation": [_flat(shape, size) for shape in shapes]} if shapes else {}),
    }


def _florence(grounding: Grounding) -> Json:
    """Florence-2's own post-processing: parallel lists in pixels. It has no points; they get a list like the others."""
    size = _size(grounding)
    boxes = [found for found in grounding.detections if found.kind == "box"]
    quads = [found for found in grounding.detections if found.quad]
    polygons = [found for found in grounding.detections if found.polygons]
    points = [found for found in grounding.detections if found.kind == "point"]
    rendered: Json = {}
    if boxes or not (quads or polygons or points):
        rendered["bboxes"] = [[round(side, _PIXELS) for side in _sides(_extent(found), size)] for found in boxes]
    if quads:
        rendered["quad_boxes"] = [_flat(found.quad or (), size) for found in quads]
    if polygons:
        rendered["polygons"] = [[_flat(shape, size) for shape in found.polygons or ()] for found in polygons]
    if points:
        rendered["points"] = [[round(number, _PIXELS) for number in _scaled(found.point, size)] for found in points]
    rendered["labels"] = [_name(found) or "" for found in (*boxes, *quads, *polygons, *points)]
    return rendered


FORMATS: Mapping[str, Callable[[Grounding], Any]] = {
    "moondream": _moondream,
    "qwen": _qwen,
    "roboflow": _roboflow,
    "coco": _coco,
    "florence": _florence,
    "lmms-eval": _lmms_eval,
}


def _size(grounding: Grounding) -> Size:
    """The image's size; objects without an image do not exist."""
    return grounding.image_size or (0, 0)


def _extent(found: Detection) -> Box:
    """The object's box; that of a point has no size."""
    if found.box is not None:
        return found.box
    point = found.point or Point(0, 0)
    return Box(point.x, point.y, point.x, point.y)


def _outline(found: Detection) -> Polygon:
    """The object's outline, of several the first; empty for a box or a point."""
    return found.quad or (found.polygons or ((),))[0]


def _sides(box: Box, size: Size) -> tuple[float, float, float, float]:
    return (box.x_min * size[0], box.y_min * size[1], box.x_max * size[0], box.y_max * size[1])


def _scaled(point: Point | None, size: Size) -> list[float]:
    return [] if point is None else [point.x * size[0], point.y * size[1]]


def _pixels(point: Point, size: Size) -> list[float]:
    return [round(number, _PIXELS) for number in _scaled(point, size)]


def _flat(shape: Polygon, size: Size) -> list[float]:
    return [number for corner in shape for number in _pixels(corner, size)]


def _name(found: Detection) -> str | None:
    """What is there: the text that was read, or the label."""
    return found.label if found.text is None else found.text


def _score(found: Detection) -> float | None:
    return None if found.score is None else float(f"{found.score:.{_SCORE_DIGITS}g}")
