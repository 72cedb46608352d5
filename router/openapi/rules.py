"""Rules about two fields of an object, which pydantic's types cannot say, as JSON schemas."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

GIVEN: Json = {"not": {"type": "null"}}
"""Of a field that is not null, which means the same as absent."""
TRUE: Json = {"const": True}
ABOVE_0: Json = {"type": "number", "exclusiveMinimum": 0}
ABOVE_1: Json = {"type": "integer", "minimum": 2}


def has(name: str, value: Json) -> Json:
    """The object has this field with such a value."""
    return {"required": [name], "properties": {name: value}}


def needs(name: str, value: Json, other: str, its_value: Json) -> Json:
    """Where a field has such a value, another one must have such a one."""
    return {"if": has(name, value), "then": has(other, its_value)}


def excludes(name: str, value: Json, other: str, its_value: Json) -> Json:
    """Where a field has such a value, another one must not have such a one."""
    return {"not": {"required": [name, other], "properties": {name: value, other: its_value}}}
