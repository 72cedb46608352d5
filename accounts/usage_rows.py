"""Rows of usage and of the ledger, and both as CSV. Knows no database."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

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
        writer.writerow(["cost" if kind is UsageRow and name == "amount" else name for name in names])  # as in JSON
    writer.writerows([_cell(name, getattr(row, name)) for name in names] for row in rows)
    return text.getvalue()


def _cell(name: str, value: object) -> object:
    if name == "amount" and isinstance(value, int):
        return dollars_of(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
