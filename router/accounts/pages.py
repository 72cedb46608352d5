"""Pages of lists, and what the query of a URL says about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import QueryParams

from vlm.errors import InvalidRequest

Json = dict[str, Any]

MAX_PAGE = 500
DEFAULT_PAGE = 100

_ID = re.compile(r"[A-Za-z0-9._:-]{1,80}")


def id_of(query: QueryParams, name: str) -> str | None:
    """The id that a query names, if it names one.

    Raises:
        InvalidRequest: It can be none: not every database takes every character.
    """
    text = query.get(name)
    if text is not None and not is_id(text):
        raise InvalidRequest(f"{name}: must be an id.", name, "invalid_value")
    return text


def is_id(text: str) -> bool:
    """Whether there can be something of this id."""
    return _ID.fullmatch(text) is not None


def limit_of(query: QueryParams) -> int:
    """How many things a page is to have.

    Raises:
        InvalidRequest: It is no number from 1 to :data:`MAX_PAGE`.
    """
    text = query.get("limit", str(DEFAULT_PAGE))
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_PAGE):
        raise InvalidRequest(f"limit: must be a whole number from 1 to {MAX_PAGE}.", "limit", "invalid_value")
    return int(text)


def number_after(query: QueryParams) -> int | None:
    """The entry behind which a page begins, of entries that are numbered."""
    text = query.get("after")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise InvalidRequest("after: must be the id of an entry.", "after", "invalid_value")
    return int(text)


def page_json(data: Sequence[Json], limit: int) -> Json:
    """A page out of the things that were found, one more than it may have if there are more."""
    shown = data[:limit]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"object": "list", "data": shown, "has_more": len(data) > limit, "first_id": first, "last_id": last}
