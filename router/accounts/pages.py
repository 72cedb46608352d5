"""Pages of lists, and what the query of a URL says about them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args

from accounts.usage import Group
from starlette.datastructures import QueryParams

from vlm.errors import InvalidRequest

Json = dict[str, Any]

MAX_PAGE = 1000
DEFAULT_PAGE = 100
DEFAULT_DAYS = 30
"""Of usage, today included, where the query does not say from when."""
MAX_CURSOR = 1024
GROUPS: tuple[Group, ...] = get_args(Group)

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


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


def days_of(query: QueryParams) -> tuple[str, str]:
    """The first and the last day of usage.

    Raises:
        InvalidRequest: One is no day, or they are in the wrong order.
    """
    end = _day(query, "end", datetime.now(UTC).date())
    start = _day(query, "start", end - timedelta(days=min(DEFAULT_DAYS - 1, end.toordinal() - 1)))
    if start > end:
        raise InvalidRequest("start: must not be after end.", "start", "invalid_value")
    return start.isoformat(), end.isoformat()


def _day(query: QueryParams, name: str, default: date) -> date:
    text = query.get(name)
    if text is None:
        return default
    try:
        return date.fromisoformat(text if _DAY.fullmatch(text) else "")
    except ValueError:
        message = f"{name}: must be a day in UTC, as 2026-11-27."
    raise InvalidRequest(message, name, "invalid_value")


def groups_of(query: QueryParams) -> tuple[Group, ...]:
    """By what usage is added up, in the order in which rows are sorted.

    Raises:
        InvalidRequest: There is something else, or nothing.
    """
    asked = query.get("group_by", "day").split(",")
    if not set(asked) <= set(GROUPS):
        raise InvalidRequest(f"group_by: must be some of: {', '.join(GROUPS)}.", "group_by", "invalid_value")
    return tuple(group for group in GROUPS if group in asked)


def cursor_of(values: Sequence[str]) -> str:
    """The text by which the page behind a row is asked for."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def values_behind(query: QueryParams, groups: Sequence[Group]) -> tuple[str, ...] | None:
    """The values of the row behind which a page begins.

    Raises:
        InvalidRequest: It is not one that a page has named.
    """
    text = query.get("page")
    if text is None:
        return None
    try:
        values = json.loads(base64.b64decode(text[:MAX_CURSOR] + "==", "-_", validate=True))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or len(values) != len(groups) or not all(_is_value(one) for one in values):
        raise InvalidRequest("page: must be what next_page was, with the same group_by.", "page", "invalid_value")
    return tuple(values)


def _is_value(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()
