"""Grounding as JSON, in the one form that the HTTP API and the command line answer with.

Standard library only. Owns the names, the order and the rounding of the published object (version 1). Knows nothing of
HTTP, models or how an answer was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlm.types import Consensus, Detection, Grounding, ObjectAnswer, Point

VERSION = "1"

Json = dict[str, Any]
Size = tuple[int, int]
Coordinates = list[float]

_NORMALISED_DECIMALS = 6
_PIXEL_DECIMALS = 2
_SCORE_DIGITS = 4
"""Significant digits: there are many location tokens to choose from, so that even a good score may be small."""


def to_json(grounding: Grounding, *, include_raw: bool = False, parts: Sequence[Grounding] = ()) -> Json:
    """The whole grounding object. Every key is always there; its value is null where it does not apply.

    Args:
        grounding: What an answer says about locations.
        include_raw: Give the model's decoded output, special tokens included, as ``raw``.
        parts: The groundings of the parts of an answer to several tasks, in order.
    """
    sizes = grounding.sizes
    return {
        "version": VERSION,
        "task": grounding.task,
        "native_task": grounding.native_task,
        "text": grounding.text,
        "reasoning": grounding.reasoning,
        "images": [{"width": width, "height": height} for width, height in sizes],
        "objects": [_object(index, found, _size(found, sizes)) for index, found in enumerate(grounding.detections)],
        "truncated": grounding.truncated,
        "below_threshold": grounding.below_threshold,
        "raw": grounding.raw if include_raw else None,
        "parts": [to_json(part, include_raw=include_raw) for part in parts],
    }


def objects_json(grounding: Grounding) -> Json:
    """The compact form, ``{"objects": [...]}``, which is the text of an answer that consists of geometry only.

    It has the same values as the whole object, without the keys that do not apply and without those about it.
    """
    sizes = grounding.sizes
    objects = [_compact(found, _size(found, sizes)) for found in grounding.detections]
    if len(sizes) < 2:
        return {"objects": objects}
    numbered = zip(grounding.detections, objects, strict=True)
    return {"objects": [{"image": found.image, **compact} for found, compact in numbered]}


def _size(found: Detection, sizes: Sequence[Size]) -> Size | None:
    """The size of the image in which an object is."""
    return sizes[found.image] if found.image < len(sizes) else None


def _object(index: int, found: Detection, size: Size | None) -> Json:
    return {
        "id": index,
        "image": found.image,
        "kind": found.kind,
        "label": found.label,
        "text": found.text,
        "score": _rounded(found.score),
        "score_type": None if found.score is None else "token_prob" if found.consensus is None else "agreement",
        "confidence": _rounded(found.confidence),
        **_geometry(found, size),
        "spans": [list(span) for span in found.spans],
        "answers": [_answer(answer, size) for answer in found.answers] or None,
        "consensus": _consensus(found.consensus),
    }


def _consensus(consensus: Consensus | None) -> Json | None:
    if consensus is None:
        return None
    return {
        "votes": consensus.votes,
        "models": list(consensus.models),
        "spread": round(consensus.spread, _NORMALISED_DECIMALS),
    }


def _answer(answer: ObjectAnswer, size: Size | None) -> Json:
    return {
        "model": answer.model,
        "task": answer.task,
        "text": answer.text,
        "objects": [_object(index, one, size) for index, one in enumerate(answer.detections)],
        "error": None if answer.error is None else {"code": answer.error[0], "message": answer.error[1]},
    }


def _compact(found: Detection, size: Size | None) -> Json:
    full = {"label": found.label, "text": found.text, **_geometry(found, size), "score": _rounded(found.score)}
    compact = {key: value for key, value in full.items() if value is not None}
    if found.consensus is not None:
        compact["votes"] = found.consensus.votes
    if found.answers:
        compact["answers"] = [_compact_answer(answer, size) for answer in found.answers]
    return compact


def _compact_answer(answer: ObjectAnswer, size: Size | None) -> Json:
    full = {
        "model": answer.model,
        "task": answer.task,
        "text": answer.text,
        "objects": [_compact(one, size) for one in answer.detections] or None,
        "error": answer.error and answer.error[0],
    }
    return {key: value for key, value in full.items() if value is not None}


def _rounded(share: float | None) -> float | None:
    return None if share is None else float(f"{share:.{_SCORE_DIGITS}g}")


def _geometry(found: Detection, size: Size | None) -> Json:
    """Each shape twice: normalised from 0 to 1, and as ``*_px`` in pixels of the upright image."""
    pixels = size and _shapes(found, size, _PIXEL_DECIMALS)
    both: Json = {}
    for name, shape in _shapes(found, (1, 1), _NORMALISED_DECIMALS).items():
        both[name] = shape
        both[f"{name}_px"] = pixels[name] if pixels else None
    return both


def _shapes(found: Detection, size: Size, decimals: int) -> Json:
    def scaled(point: Point) -> Coordinates:
        # From the exact value, since pixels of a large image would lose precision if the rounded one were scaled.
        return [round(point.x * size[0], decimals), round(point.y * size[1], decimals)]

    box, polygons = found.box, found.polygons
    return {
        "box": None if box is None else scaled(Point(box.x_min, box.y_min)) + scaled(Point(box.x_max, box.y_max)),
        "point": None if found.point is None else scaled(found.point),
        "quad": None if found.quad is None else [scaled(corner) for corner in found.quad],
        "polygons": None if polygons is None else [[scaled(corner) for corner in polygon] for polygon in polygons],
    }
