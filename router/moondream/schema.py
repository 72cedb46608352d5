"""The JSON of Moondream's requests: which fields each route has, their types and their ranges.

What they mean as a task is in ``router.moondream.tasks``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from router.asgi.validation import Checked, UnicodeText
from router.conversation.fields import MAX_REFERENCES, MaxObjects, MaxTokens, Share, Temperature, TopP, Url, Word
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


NOT_BLANK: dict[str, Any] = {"pattern": r"\S"}
Text = Annotated[UnicodeText, AfterValidator(_not_blank), Field(json_schema_extra=NOT_BLANK)]
ObjectName = Annotated[str, StringConstraints(max_length=256)]
SpatialRef = Annotated[
    list[Share],
    Field(max_length=4, json_schema_extra={"minItems": 2, "not": {"minItems": 3, "maxItems": 3}}),
    AfterValidator(_reference),
]
SpatialRefs = Annotated[list[SpatialRef], Field(max_length=MAX_REFERENCES)]

ABOUT_IMAGE = "The image."
ABOUT_OBJECT = "What to look for, as one label, commas included."
ABOUT_REFERENCES = "Points [x, y] and boxes [x1, y1, x2, y2] with x1 <= x2 and y1 <= y2, from 0 to 1."
ABOUT_STREAM = "Send the answer as events."


class Settings(Checked):
    """How the answer is generated; other keys are ignored and reported."""

    temperature: Temperature | None = Field(default=None, description="0 is greedy.")
    top_p: TopP | None = Field(
        default=None, description="Sample from the most likely tokens of this probability together."
    )
    max_tokens: MaxTokens | None = Field(default=None, description="Maximum number of tokens to generate.")
    max_objects: MaxObjects | None = Field(default=None, description="Maximum number of objects.")


class MoondreamBody(Checked):
    """What all routes have; only a question may come without an image."""

    model: Word | None = Field(default=None, description="Any model that has the task; by default Moondream's.")
    image_url: Url | None = Field(default=None, description=ABOUT_IMAGE)
    settings: Settings | None = Field(default=None, description="How the answer is generated.")
    drop_params: bool | None = Field(default=None, description="Ignore a variant instead of refusing it.")


class CaptionBody(MoondreamBody):
    """The body of ``POST /v1/caption``."""

    image_url: Url
    length: CaptionLength | None = Field(
        default=None, description="Length of the caption.", json_schema_extra={"default": "normal"}
    )
    stream: bool | None = Field(default=None, description=ABOUT_STREAM, json_schema_extra={"default": False})


class QueryBody(MoondreamBody):
    """The body of ``POST /v1/query``."""

    question: Text = Field(description="The question.")
    reasoning: bool | None = Field(
        default=None, description="Reason before answering.", json_schema_extra={"default": False}
    )
    spatial_refs: SpatialRefs | None = Field(
        default=None, description=ABOUT_REFERENCES, json_schema_extra={"default": []}
    )
    stream: bool | None = Field(default=None, description=ABOUT_STREAM, json_schema_extra={"default": False})


class DetectBody(MoondreamBody):
    """The body of ``POST /v1/detect``."""

    image_url: Url
    object: Annotated[ObjectName, AfterValidator(_not_blank)] = Field(
        description=ABOUT_OBJECT, json_schema_extra=NOT_BLANK
    )


class PointBody(DetectBody):
    """The body of ``POST /v1/point``."""

    spatial_refs: SpatialRefs | None = Field(
        default=None, description=ABOUT_REFERENCES, json_schema_extra={"default": []}
    )


class SegmentBody(MoondreamBody):
    """The body of ``POST /v1/segment``; the object may be blank where a box says what to segment."""

    image_url: Url
    object: ObjectName | None = Field(default=None, description=ABOUT_OBJECT)
    spatial_refs: SpatialRefs | None = Field(
        default=None, description=ABOUT_REFERENCES, json_schema_extra={"default": []}
    )
    stream: bool | None = Field(default=None, description=ABOUT_STREAM, json_schema_extra={"default": False})


BODIES: Mapping[str, type[MoondreamBody]] = MappingProxyType(
    {"caption": CaptionBody, "query": QueryBody, "detect": DetectBody, "point": PointBody, "segment": SegmentBody}
)
"""The body of each route by the route's last part, which is the canonical name of its task, too."""
