"""How balances, entries and usage look from outside: seconds, and US dollars as decimal strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from accounts.money import Nano, dollars_of
from accounts.types import PERIODS, Period
from accounts.usage_rows import Entry, UsageRow
from router.accounts.usage_query import UsageQuery

if TYPE_CHECKING:
    from accounts.books import Spent
    from accounts.grants import Balance

Json = dict[str, Any]

COUNTS = ("requests", "failed", "images", "cached_images", "prompt_tokens", "completion_tokens")


def credits_json(account: str, balance: Balance) -> Json:
    """What an account has."""
    return {
        "object": "credits",
        "account": account,
        "currency": "usd",
        "prepaid": balance.prepaid,
        "balance": dollars_of(balance.settled),
        "held": dollars_of(balance.held),
        "available": dollars_of(balance.left),
    }


def budgets_json(budgets: Mapping[Period, Nano], spent: Mapping[Period, Spent], now: datetime) -> Json:
    """What is left of each budget of a key."""
    return {
        period: {
            "limit": dollars_of(budgets[period]),
            "spent": dollars_of(spent[period].settled),
            "held": dollars_of(spent[period].held),
            "available": dollars_of(budgets[period] - spent[period].settled - spent[period].held),
            "resets_at": resets_at(period, now),
        }
        for period in PERIODS
        if period in budgets
    }


def entry_json(entry: Entry) -> Json:
    """A line of the ledger."""
    return {
        "id": str(entry.id),
        "object": "credits.entry",
        "created_at": entry.at // 1000,
        "account": entry.account_id,
        "key": entry.key_id,
        "kind": entry.kind,
        "amount": dollars_of(entry.amount),
        "request_id": entry.request_id,
        "outcome": entry.outcome,
        "model": entry.model,
        "tasks": None if entry.tasks is None else [task for task in entry.tasks.split(",") if task],
        "images": entry.images,
        "cached_images": entry.cached_images,
        "prompt_tokens": entry.prompt_tokens,
        "completion_tokens": entry.completion_tokens,
        "batch": entry.batch,
        "price_list": entry.price_list,
        "note": entry.note,
    }


def usage_json(query: UsageQuery, found: Sequence[UsageRow], limit: int) -> Json:
    """A page of usage, of which one row more than it may have was found if there are more."""
    shown = found[:limit]
    has_more = len(found) > limit
    return {
        "object": "list",
        "start": query.start.isoformat(),
        "end": query.end.isoformat(),
        "group_by": list(query.by),
        "data": [_row_json(row) for row in shown],
        "has_more": has_more,
        "next_page": query.behind(shown[-1]).cursor if has_more else None,
    }


def resets_at(period: Period, now: datetime) -> int | None:
    """When a budget begins anew, in seconds since 1970; None for one that never does."""
    if period == "total":
        return None
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    if period == "day":
        return int((midnight + timedelta(days=1)).timestamp())
    return int((midnight.replace(day=1) + timedelta(days=32)).replace(day=1).timestamp())


def _row_json(row: UsageRow) -> Json:
    return {
        "object": "usage",
        "day": row.day,
        "model": row.model,
        "key": row.key,
        "account": row.account,
        **{name: getattr(row, name) for name in COUNTS},
        "cost": dollars_of(row.amount),
    }
