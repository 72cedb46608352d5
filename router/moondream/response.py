"""A completion as Moondream's JSON: the answer under the name of its kind, and beside it what it cost.

Coordinates are those of the library, unrounded: from 0 to 1 of the upright image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from accounts.money import Nano
from router.conversation.answer import ResponseMeta, cost_json, extras_json
from router.moondream.request import MoondreamRequest
from vlm.types import Box, Completion, Detection, Grounding, Point, Polygon

Json = dict[str, Any]

_MILLISECONDS = 3
_PATH = 6
"""Decimals of the numbers of a path, which are from 0 to 1 of the object's box."""


@dataclass(frozen=True, slots=True)
class Answerer:
    """Makes the JSON of one answer.

    Attributes:
        request: What was asked for.
        request_id: As in the header.
        costs: What a whole answer costs in nano-dollars; None where its price is not known.
    """

    request: MoondreamRequest
    request_id: str
    costs: Callable[[Completion], Nano | None] = lambda _: None

    def whole(self, completion: Completion) -> Json:
        """The body of a whole answer."""
        answer = _ANSWERS[self.request.task.name](completion)
        return {"request_id": self.request_id, **answer, **self.cost(completion)}

    def cost(self, completion: Completion) -> Json:
        """What stands beside every answer: how it ended, what it cost, and what is this router's own."""
        meta = ResponseMeta(self.request.model, self.request_id, costs=self.costs)
        ignored = replace(completion, ignored=self.request.ignored(completion.ignored))
        return {
            "finish_reason": completion.finish_reason,
            "metrics": metrics_json(completion),
            "x_gigarouter": {**extras_json(ignored, meta), **cost_json(completion, meta)},
        }


def metrics_json(completion: Completion) -> Json:
    """Tokens and times."""
    usage, timings = completion.usage, completion.timings
    times = {
        "prefill_time_ms": timings.first_token_ms - timings.queue_ms,
        "decode_time_ms": timings.total_ms - timings.prepare_ms - timings.first_token_ms,
        "ttft_ms": timings.prepare_ms + timings.first_token_ms,
    }
    return {
        "input_tokens": usage.image_tokens + usage.text_tokens,
        "output_tokens": usage.completion_tokens,
        **{name: round(max(0.0, time), _MILLISECONDS) for name, time in times.items()},
    }


def reasoning_json(grounding: Grounding) -> Json:
    """The reasoning before an answer, with the points of each part of it; no key where there is none."""
    if grounding.reasoning is None:
        return {}
    pointing = [one for one in grounding.detections if one.point is not None and one.spans]
    parts = groupby(pointing, key=lambda one: one.spans[0])
    grounded = [{"start_idx": start, "end_idx": end, "points": _pairs(part)} for (start, end), part in parts]
    return {"reasoning": {"text": grounding.reasoning, "grounding": grounded}}


def segment_json(grounding: Grounding) -> Json:
    """The outline as an SVG path from 0 to 1 of the box around it; an empty path and no box where nothing is found."""
    polygons = [polygon for found in grounding.detections for polygon in found.polygons or () if polygon]
    if not polygons:
        return {"path": "", "bbox": None}
    box = Box.spanning(tuple(corner for polygon in polygons for corner in polygon))
    return {"path": " ".join(_path(polygon, box) for polygon in polygons), "bbox": _corners(box)}


def _objects(completion: Completion) -> Json:
    return {"objects": [_corners(found.box) for found in completion.grounding.detections if found.box is not None]}


def _points(completion: Completion) -> Json:
    points = [{"x": point.x, "y": point.y} for point in _points_of(completion.grounding.detections)]
    return {"points": points, "count": len(points)}


_ANSWERS: Mapping[str, Callable[[Completion], Json]] = {
    "caption": lambda completion: {"caption": completion.text},
    "query": lambda completion: {"answer": completion.text, **reasoning_json(completion.grounding)},
    "detect": _objects,
    "point": _points,
    "segment": lambda completion: segment_json(completion.grounding),
}


def _corners(box: Box) -> Json:
    return {"x_min": box.x_min, "y_min": box.y_min, "x_max": box.x_max, "y_max": box.y_max}


def _points_of(detections: Iterator[Detection] | tuple[Detection, ...]) -> Iterator[Point]:
    return (found.point for found in detections if found.point is not None)


def _pairs(detections: Iterator[Detection]) -> list[list[float]]:
    return [[point.x, point.y] for point in _points_of(detections)]


def _path(polygon: Polygon, box: Box) -> str:
    """A closed path through the corners of a polygon."""
    corners = [
        f"{_share(corner.x, box.x_min, box.x_max)} {_share(corner.y, box.y_min, box.y_max)}" for corner in polygon
    ]
    return f"M {' L '.join(corners)} Z"


def _share(value: float, start: float, end: float) -> str:
    """How far ``value`` is from ``start`` to ``end``."""
    share = (value - start) / (end - start) if end > start else 0.0
    return f"{share:.{_PATH}f}".rstrip("0").rstrip(".")
