"""What the query of a URL says about usage: of which days, by what it is added up, and where a page begins."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from starlette.datastructures import QueryParams

from accounts.usage_rows import GROUPS, Group, UsageRow
from vlm.errors import InvalidRequest

DEFAULT_DAYS = 30
"""Today included, where the query does not say from when."""
MAX_CURSOR = 1024

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What is asked for.

    Attributes:
        start, end: The first and the last day, in UTC.
        by: What rows are told apart by.
        after: The values by which the row is told apart that the page comes behind; empty for the first page.
    """

    start: date
    end: date
    by: tuple[Group, ...]
    after: tuple[str, ...] = ()

    def behind(self, row: UsageRow) -> UsageQuery:
        """The same, for the page that comes behind ``row``."""
        return replace(self, after=tuple(getattr(row, group) for group in self.by))

    @property
    def cursor(self) -> str:
        """The text by which this page is asked for."""
        return base64.urlsafe_b64encode(json.dumps(self.after).encode()).decode().rstrip("=")


def read_usage_query(query: QueryParams, groups: Sequence[Group]) -> UsageQuery:
    """What a query asks for.

    Args:
        query: Of the URL.
        groups: Those by which the caller may tell rows apart, in the order in which they are sorted.

    Raises:
        InvalidRequest: A value is none.
    """
    end = _day(query, "end", datetime.now(UTC).date())
    start = _day(query, "start", end - timedelta(days=min(DEFAULT_DAYS - 1, end.toordinal() - 1)))
    if start > end or end == date.max:
        raise InvalidRequest("start: must not be after end.", "start", "invalid_value")
    asked = query.get("group_by", "day").split(",")
    if not set(asked) <= set(groups):
        raise InvalidRequest(f"group_by: must be some of: {', '.join(groups)}.", "group_by", "invalid_value")
    by = tuple(group for group in GROUPS if group in asked)
    return UsageQuery(start, end, by, _after(query, by))


def _day(query: QueryParams, name: str, default: date) -> date:
    text = query.get(name)
    if text is None:
        return default
    try:
        return date.fromisoformat(text if _DAY.fullmatch(text) else "")
    except ValueError:
        message = f"{name}: must be a day in UTC, as 2026-11-27."
    raise InvalidRequest(message, name, "invalid_value")


def _after(query: QueryParams, by: Sequence[Group]) -> tuple[str, ...]:
    text = query.get("page")
    if text is None:
        return ()
    try:
        values = json.loads(base64.b64decode(text[:MAX_CURSOR] + "==", "-_"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or len(values) != len(by) or not all(map(_is_value, values)):
        raise InvalidRequest("page: must be what next_page was, with the same group_by.", "page", "invalid_value")
    return tuple(values)


def _is_value(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()
