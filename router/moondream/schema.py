"""The JSON of Moondream's requests: which fields each route has, their types and their ranges.

What they mean as a task is in ``router.moondream.tasks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from router.asgi.validation import Checked, UnicodeText
from router.chat.schema import MAX_REFERENCES, Share, Word
from vlm.types import CaptionLength


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


def _reference(values: list[float]) -> list[float]:
    if len(values) not in (2, 4):
        raise PydanticCustomError("reference", "must be a point [x, y] or a box [x1, y1, x2, y2]")
    if len(values) == 4 and (values[0] > values[2] or values[1] > values[3]):
        raise PydanticCustomError("reference", "must be a box [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2")
    return values


Text = Annotated[UnicodeText, AfterValidator(_not_blank)]
ObjectName = Annotated[str, StringConstraints(max_length=256)]
SpatialRef = Annotated[list[Share], Field(max_length=4), AfterValidator(_reference)]
SpatialRefs = Annotated[list[SpatialRef], Field(max_length=MAX_REFERENCES)]


class Settings(Checked):
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_objects: Annotated[int, Field(ge=1, le=1000)] | None = None


class MoondreamBody(Checked):
    """What all routes have; only a question may come without an image."""

    model: Word | None = None
    image_url: str | None = None
    settings: Settings | None = None
    drop_params: bool | None = None


class CaptionBody(MoondreamBody):
    """The body of ``POST /v1/caption``."""

    image_url: str
    length: CaptionLength | None = None
    stream: bool | None = None


class QueryBody(MoondreamBody):
    """The body of ``POST /v1/query``."""

    question: Text
    reasoning: bool | None = None
    spatial_refs: SpatialRefs | None = None
    stream: bool | None = None


class DetectBody(MoondreamBody):
    """The body of ``POST /v1/detect``."""

    image_url: str
    object: Annotated[ObjectName, AfterValidator(_not_blank)]


class PointBody(DetectBody):
    """The body of ``POST /v1/point``."""

    spatial_refs: SpatialRefs | None = None


class SegmentBody(MoondreamBody):
    """The body of ``POST /v1/segment``; the object may be blank where a box says what to segment."""

    image_url: str
    object: ObjectName | None = None
    spatial_refs: SpatialRefs | None = None
    stream: bool | None = None


BODIES: Mapping[str, type[MoondreamBody]] = MappingProxyType(
    {"caption": CaptionBody, "query": QueryBody, "detect": DetectBody, "point": PointBody, "segment": SegmentBody}
)
"""The body of each route by the route's last part, which is the canonical name of its task, too."""
