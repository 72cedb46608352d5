"""The published grounding object as types, and as the JSON schema that is made from them.

Standard library only. ``vlm.grounding_json`` makes the object; a test holds each against the other.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

Json = dict[str, Any]
Pair = list[float]


class ImageJson(TypedDict):
    """An upright image, in pixels."""

    width: int
    height: int


class AnswerErrorJson(TypedDict):
    """Why there is no answer about an object."""

    code: str
    message: str


class AnswerJson(TypedDict):
    """What a model says about one object; its own objects are in the frame of the whole image."""

    model: str
    task: str
    text: str | None
    objects: list[ObjectJson]
    error: AnswerErrorJson | None


class ConsensusJson(TypedDict):
    """Which of several models agree on an object, and how far their boxes are from each other: 0 if they are equal."""

    votes: int
    models: list[str]
    spread: float


class ObjectJson(TypedDict):
    """One object; each shape is null where the object does not have it, ``*_px`` is in pixels."""

    id: int
    image: int
    kind: Literal["box", "point", "quad", "polygon"]
    label: str | None
    text: str | None
    score: float | None
    score_type: Literal["token_prob", "agreement"] | None
    confidence: float | None
    box: list[float] | None
    box_px: list[float] | None
    point: Pair | None
    point_px: Pair | None
    quad: list[Pair] | None
    quad_px: list[Pair] | None
    polygons: list[list[Pair]] | None
    polygons_px: list[list[Pair]] | None
    spans: list[list[int]]
    answers: list[AnswerJson] | None
    consensus: ConsensusJson | None


class GroundingJson(TypedDict):
    """What an answer says about regions of the image."""

    version: Literal["1"]
    task: str
    native_task: str
    text: str | None
    reasoning: str | None
    images: list[ImageJson]
    objects: list[ObjectJson]
    truncated: bool
    below_threshold: int
    raw: str | None
    parts: list[GroundingJson]


_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


def grounding_schema() -> Json:
    """The JSON schema of the grounding object, draft 2020-12; also what OpenAI calls a strict schema."""
    kinds = (GroundingJson, ImageJson, ObjectJson, AnswerJson, AnswerErrorJson, ConsensusJson)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "grounding",
        **_object(GroundingJson),
        "$defs": {kind.__name__: _object(kind) for kind in kinds},
    }


def _object(kind: type) -> Json:
    hints = get_type_hints(kind)
    return {
        "type": "object",
        "description": (kind.__doc__ or "").strip(),
        "properties": {name: _schema(hint) for name, hint in hints.items()},
        "required": list(hints),
        "additionalProperties": False,
    }


def _schema(hint: Any) -> Json:
    if is_typeddict(hint):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if get_origin(hint) is list:
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    if get_origin(hint) is Literal:
        return {"type": "string", "enum": list(get_args(hint))}
    if get_origin(hint) in (Union, UnionType):
        return {"anyOf": [_schema(one) for one in get_args(hint)]}
    return {"type": _SCALARS[hint]}
