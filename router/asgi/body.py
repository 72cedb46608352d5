"""A request's body as a JSON object, within limits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive, Scope

from router.asgi.errors import BodyTooLarge
from vlm.errors import InvalidRequest

Json = dict[str, Any]

MAX_JSON_DEPTH = 32
MAX_JSON_ITEMS = 50_000
"""Items of lists and objects; a request needs a few hundred. Reading more would delay all other requests."""
MAX_SKIPPED = 64
"""Data URLs whose characters are not looked at when items are counted: more than a request may have images."""

_DATA = b"base64,"


def read_object(body: bytes) -> Json:
    """A JSON object, whose whole numbers are integers however they are spelled.

    Raises:
        InvalidRequest: It is not a JSON object, has too many items, or nests too deep.
    """
    if _items(body) > MAX_JSON_ITEMS:
        raise InvalidRequest(
            f"The body has more than {MAX_JSON_ITEMS} items in its lists and objects.", code="invalid_json"
        )
    try:
        raw = _parsed(body)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8 or an endless number
        raise InvalidRequest("The body is not valid JSON.", code="invalid_json") from error
    if not isinstance(raw, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    if _deeper_than(raw, MAX_JSON_DEPTH):
        raise InvalidRequest(f"The body is nested more than {MAX_JSON_DEPTH} levels deep.", code="invalid_json")
    return raw


def _items(body: bytes) -> int:
    """At least the number of items in the body's lists and objects, counted before it is parsed.

    The data of images is skipped, which is nearly all of most bodies: ``base64,`` can stand only within a string, so
    no item begins before the next quote.
    """
    count = start = 0
    for _ in range(MAX_SKIPPED):
        data = body.find(_DATA, start)
        end = body.find(b'"', data)
        if data < 0 or end < 0:
            break
        count += _begun(body, start, data)
        start = end
    return count + _begun(body, start, len(body))


def _begun(body: bytes, start: int, end: int) -> int:
    return body.count(b",", start, end) + body.count(b"[", start, end) + body.count(b"{", start, end)


def _parsed(body: bytes) -> Any:
    """The JSON; pydantic's parser is ten times as fast with long strings, and json's reads a little more.

    That is UTF-16, a byte order mark and lone surrogates.
    """
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        return json.loads(body, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_CONTAINERS = (dict, list)


def _deeper_than(value: object, limit: int) -> bool:
    """Whether something is within ``limit`` lists and objects."""
    level = [value]
    for _ in range(limit - 1):
        level = [child for parent in level for child in _children(parent) if isinstance(child, _CONTAINERS)]
        if not level:
            return False
    return any(level)


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


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
