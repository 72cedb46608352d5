"""Pages of what was used and of the ledger's entries, and both as CSV. Reads only; knows no HTTP.

Usage is read from ``usage_days``, which has a row for each day, key and model whatever was asked on it. Pages go on
where the last one ended, by value, so that no page takes longer than the first.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import Column, Connection, Select, func, select, tuple_
from sqlalchemy.types import BigInteger

from accounts import schema
from accounts.money import Nano, dollars_of

Group = Literal["day", "model", "key", "account"]
"""What a row of usage is about."""
GROUPS: tuple[Group, ...] = ("day", "model", "key", "account")

MAX_ROWS = 1000
"""Of a page."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was used; those of ``day``, ``model``, ``key`` and ``account`` are None that all are together.

    Attributes:
        day: As 2026-11-27 in UTC: when the request was let in.
        model: Canonical name.
        key, account: Ids.
        requests: Those that are paid, at whatever price.
        failed: Those that are not, beside them.
        images, cached_images, prompt_tokens, completion_tokens: Of what is paid.
        amount: What it cost.
    """

    day: str | None
    model: str | None
    key: str | None
    account: str | None
    requests: int
    failed: int
    images: int
    cached_images: int
    prompt_tokens: int
    completion_tokens: int
    amount: Nano


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the ledger, as its table has it: credits are positive, charges negative."""

    id: int
    uid: str
    account_id: str
    key_id: str | None
    kind: str
    amount: Nano
    at: int
    day: str | None
    request_id: str | None
    outcome: str | None
    model: str | None
    tasks: str | None
    images: int | None
    cached_images: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    batch: bool | None
    price_list: str | None
    note: str | None


_DAYS = schema.usage_days.c
_BY: dict[Group, Column[Any]] = {
    "day": _DAYS.day,
    "model": _DAYS.model,
    "key": _DAYS.key_id,
    "account": _DAYS.account_id,
}
_SUMS = ("requests", "failed", "images", "cached_images", "prompt_tokens", "completion_tokens", "amount")


def usage(
    connection: Connection,
    account: str | None,
    *,
    start: str,
    end: str,
    by: Sequence[Group] = ("day",),
    key: str | None = None,
    after: Sequence[str] = (),
    limit: int = MAX_ROWS,
) -> list[UsageRow]:
    """A page of what was used, in the order of ``by``.

    Args:
        connection: In a transaction.
        account: Whose; None for all accounts together.
        start: The first day, as 2026-11-01.
        end: The day after the last one.
        by: What rows are told apart by; empty for one row of everything.
        key: Only what this key used.
        after: The values by which the last row of the page before is told apart; empty for the first page.
        limit: Most rows.
    """
    groups = [_BY[name] for name in by]
    query = select(*groups, *(func.sum(_DAYS[name]).cast(BigInteger) for name in _SUMS))
    query = query.where(_DAYS.day >= start, _DAYS.day < end)
    query = query if account is None else query.where(_DAYS.account_id == account)
    query = query if key is None else query.where(_DAYS.key_id == key)
    if after:
        query = query.where(tuple_(*groups) > tuple_(*after))
    rows = connection.execute(query.group_by(*groups).order_by(*groups).limit(min(limit, MAX_ROWS)))
    return [_usage_row(by, row) for row in rows if row[-1] is not None]


def _usage_row(by: Sequence[Group], row: Sequence[Any]) -> UsageRow:
    of = dict(zip(by, row, strict=False))
    return UsageRow(of.get("day"), of.get("model"), of.get("key"), of.get("account"), *row[len(by) :])


def entries(connection: Connection, account: str, *, before: int | None = None, limit: int = MAX_ROWS) -> list[Entry]:
    """A page of an account's entries, the newest first.

    Args:
        connection: In a transaction.
        account: Its id.
        before: Only entries with a smaller id: that of the last one of the page before.
        limit: Most entries.
    """
    table = schema.entries.c
    query: Select[Any] = select(*(table[field.name] for field in fields(Entry))).where(table.account_id == account)
    query = query if before is None else query.where(table.id < before)
    return [Entry(*row) for row in connection.execute(query.order_by(table.id.desc()).limit(min(limit, MAX_ROWS)))]


def csv_of(rows: Iterable[UsageRow] | Iterable[Entry], kind: type[UsageRow] | type[Entry], *, head: bool = True) -> str:
    """Rows as CSV, amounts in US dollars. What a spreadsheet would take for a formula begins with an apostrophe.

    Args:
        rows: Of one kind.
        kind: Which.
        head: Whether the names of the columns come first.
    """
    names = [field.name for field in fields(kind)]
    text = io.StringIO()
    writer = csv.writer(text)
    if head:
        writer.writerow(names)
    writer.writerows([_cell(name, getattr(row, name)) for name in names] for row in rows)
    return text.getvalue()


def _cell(name: str, value: object) -> object:
    if name == "amount" and isinstance(value, int):
        return dollars_of(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
