"""The operations of Moondream's routes, and their answers as types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from router.moondream.schema import BODIES, NOT_BLANK, MoondreamBody, SegmentBody
from router.openapi.answers import Count, Extras, FinishReason, Milliseconds
from router.openapi.error_codes import OF_REQUESTS
from router.openapi.operation import JSON, Answer, Events, Operation
from router.openapi.parts import IDEMPOTENCY_KEY, JSON_BODY, OF_MODELS
from router.openapi.rules import has
from router.openapi.schemas import Says

Share = Annotated[float, Field(ge=0, le=1)]
Pair = Annotated[list[Share], Field(min_length=2, max_length=2)]


class MoondreamMetrics(TypedDict):
    """Tokens, and times in milliseconds."""

    input_tokens: Count
    output_tokens: Count
    prefill_time_ms: Milliseconds
    decode_time_ms: Milliseconds
    ttft_ms: Milliseconds


class MoondreamExtras(Extras):
    """What this server says beside the answer, and what that costs."""

    cost: NotRequired[Annotated[float, Says("US dollars; absent where the price is not known.")]]


class MoondreamAnswer(TypedDict):
    """What stands beside every answer."""

    request_id: str
    finish_reason: FinishReason
    metrics: MoondreamMetrics
    x_gigarouter: MoondreamExtras


class MoondreamBox(TypedDict):
    """A box, from 0 to 1."""

    x_min: Share
    y_min: Share
    x_max: Share
    y_max: Share


class MoondreamPoint(TypedDict):
    """A point, from 0 to 1."""

    x: Share
    y: Share


class GroundedPart(TypedDict):
    """A part of the reasoning and the points that it mentions."""

    start_idx: Count
    end_idx: Count
    points: list[Pair]


class MoondreamReasoning(TypedDict):
    """What the model generated before its answer."""

    text: str
    grounding: list[GroundedPart]


class CaptionAnswer(MoondreamAnswer):
    """A caption."""

    caption: str


class QueryAnswer(MoondreamAnswer):
    """An answer to a question."""

    answer: str
    reasoning: NotRequired[MoondreamReasoning]


class DetectAnswer(MoondreamAnswer):
    """Boxes."""

    objects: list[MoondreamBox]


class PointAnswer(MoondreamAnswer):
    """Points."""

    points: list[MoondreamPoint]
    count: Count


class SegmentAnswer(MoondreamAnswer):
    """An outline."""

    path: Annotated[str, Says("An SVG path of straight lines, from 0 to 1 of its bbox; empty where nothing was found.")]
    bbox: MoondreamBox | None


class TextEvent(TypedDict):
    """A piece of an answer or of the reasoning before it."""

    chunk: NotRequired[str]
    reasoning_chunk: NotRequired[str]
    completed: Literal[False]
    request_id: str


class LastTextEvent(MoondreamAnswer):
    """The end of an answer, with what stands beside it."""

    chunk: Literal[""]
    completed: Literal[True]
    reasoning: NotRequired[MoondreamReasoning]


class BoxEvent(TypedDict):
    """The box of a segment."""

    type: Literal["bbox"]
    bbox: MoondreamBox | None
    request_id: str


class PathEvent(TypedDict):
    """The outline of a segment."""

    type: Literal["path_delta"]
    chunk: str
    completed: Literal[False]
    request_id: str


class LastSegmentEvent(SegmentAnswer):
    """Both once more, with what stands beside every answer."""

    type: Literal["final"]
    completed: Literal[True]


ONE_BOX = {"type": "array", "minItems": 1, "maxItems": 1, "items": {"minItems": 4}}


class SegmentRequest(SegmentBody):
    """What to segment: an object by its name, or what is in a single box."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [has("object", {"type": "string", **NOT_BLANK}), has("spatial_refs", ONE_BOX)]}
    )


REQUESTS: Mapping[str, type[MoondreamBody]] = {**BODIES, "segment": SegmentRequest}


_ERROR = {"type": "string", "pattern": r"^\[ERROR\] "}
_TEXT_EVENTS = Events(
    "With stream: true. Pieces of the reasoning, if there is any, and of the text, and a last event. After an error "
    "comes an event that is no JSON, which Moondream's client raises.",
    TextEvent | LastTextEvent,
    other=(_ERROR,),
)
_SEGMENT_EVENTS = Events(
    "With stream: true. The box, the path, and both as the last event. After an error comes an event that is no JSON, "
    "which Moondream's client raises.",
    BoxEvent | PathEvent | LastSegmentEvent,
    other=(_ERROR,),
)
_ANSWERS: Mapping[str, tuple[Any, str, Events | None]] = {
    "caption": (CaptionAnswer, "Describe an image", _TEXT_EVENTS),
    "query": (QueryAnswer, "Answer a question, about an image or without one", _TEXT_EVENTS),
    "detect": (DetectAnswer, "Find objects, as boxes", None),
    "point": (PointAnswer, "Find objects, as points", None),
    "segment": (SegmentAnswer, "Outline an object", _SEGMENT_EVENTS),
}

_BODY = f"""{JSON_BODY} A variant, at the top or in settings, is refused, unless drop_params is true: it names another \
model. In a box, x1 <= x2 and y1 <= y2. The model must have the task, which GET /v1/models lists."""


def _operation(name: str) -> Operation:
    kind, summary, events = _ANSWERS[name]
    return Operation(
        id=name,
        summary=summary,
        description="In the JSON of Moondream's cloud, for Moondream's own clients.",
        tag="moondream",
        method="POST",
        body={JSON: REQUESTS[name]},
        body_description=_BODY,
        answers={200: Answer("The answer.", {JSON: kind}, headers=OF_MODELS, events=events)},
        codes=OF_REQUESTS,
        parameters=(IDEMPOTENCY_KEY,),
    )


MOONDREAM: Mapping[str, Operation] = {name: _operation(name) for name in _ANSWERS}
"""By the last part of the route's path."""
