"""A request body's bytes as a JSON object, within limits. Knows nothing of what the object means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from vlm.types import InvalidRequest

Json = dict[str, Any]

MAX_JSON_DEPTH = 32


def read_object(body: bytes) -> Json:
    """A JSON object, within the depth that anything here needs."""
    try:
        raw = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8 or an endless number
        raise InvalidRequest("The body is not valid JSON.", code="invalid_json") from error
    if not isinstance(raw, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    if _deeper_than(raw, MAX_JSON_DEPTH):
        raise InvalidRequest(f"The body nests deeper than {MAX_JSON_DEPTH} levels.", code="invalid_json")
    return raw


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _deeper_than(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for parent in level for child in _children(parent)]
    return bool(level)


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
