"""A request's body as a JSON object, within limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive, Scope

from router.asgi.errors import BodyTooLarge
from vlm.errors import InvalidRequest

Json = dict[str, Any]

MAX_JSON_DEPTH = 32
MAX_JSON_ITEMS = 50_000
"""Items of lists and objects; a request needs a few hundred. Reading more would delay all other requests."""
MAX_WHOLE = 2**53
"""Beyond it, not every whole number is one that a float can have."""


def read_object(body: bytes) -> Json:
    """A JSON object, whose whole numbers are integers however they are spelled.

    Raises:
        InvalidRequest: It is not a JSON object, has too many items, or nests too deep.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_JSON_ITEMS:
        raise InvalidRequest(
            f"The body has more than {MAX_JSON_ITEMS} items in its lists and objects.", code="invalid_json"
        )
    try:
        raw = json.loads(body, parse_constant=_refuse_constant, parse_float=_number)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8 or an endless number
        raise InvalidRequest("The body is not valid JSON.", code="invalid_json") from error
    if not isinstance(raw, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    if _deeper_than(raw, MAX_JSON_DEPTH):
        raise InvalidRequest(f"The body is nested more than {MAX_JSON_DEPTH} levels deep.", code="invalid_json")
    return raw


def _number(spelled: str) -> float:
    """A number by its value: JSON has no other kind, and many a client writes the whole number 1 as 1.0."""
    number = float(spelled)
    return int(number) if number.is_integer() and abs(number) <= MAX_WHOLE else number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


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


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body.

    Raises:
        BodyTooLarge: It has more than ``limit`` bytes, or its Content-Length says so; the rest is not read.
        starlette.requests.ClientDisconnect: The client left.
    """
    check_size(declared_bytes(scope), limit)
    parts, size = [], 0
    async for part in Request(scope, receive).stream():
        parts.append(part)
        size += len(part)
        check_size(size, limit)
    return b"".join(parts)  # a body in one part, which is what the front hands on, is not copied


def declared_bytes(scope: Scope) -> int:
    """The Content-Length; 0 where it is missing or not a number, so that the bytes themselves have to be counted."""
    declared = Headers(scope=scope).get("content-length", "")
    if not (declared.isascii() and declared.isdecimal()):
        return 0
    return int(declared[:19])  # longer than any size: Python refuses to read thousands of digits


def check_size(size: int, limit: int) -> None:
    """Refuse a body of more than ``limit`` bytes.

    Raises:
        BodyTooLarge: It has more.
    """
    if size > limit:
        raise BodyTooLarge(f"The request body has more than {limit} bytes; send a smaller image or fewer fields.")
