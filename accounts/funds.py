"""What decides whether a hold is taken: the state of its key, its budgets, and the credits of its account."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from accounts.errors import WRONG_KEY, QuotaSpent, WrongKey
from accounts.money import Nano, dollars_of
from accounts.sums import TOTAL, Changes
from accounts.types import HoldAsk, Period
from vlm.errors import VlmError

_OF = {"day": "for the day", "month": "for the month", "total": "in total"}


@dataclass(frozen=True, slots=True)
class Funds:
    """Of one key, as they were read.

    Attributes:
        account: Its account.
        good: Whether it was not revoked and has not expired, and its account is not closed.
        prepaid: Whether requests need credits.
        credits: What is left of them.
        budgets: The most that the key may spend.
        spent: What it has spent or holds, by period of the table; nothing where one is missing.
    """

    account: str
    good: bool
    prepaid: bool
    credits: Nano
    budgets: Mapping[Period, Nano]
    spent: dict[str, Nano] = field(default_factory=dict)


class Till:
    """Decides about holds one after the other, each with those in mind that it has let in before.

    Args:
        rows: Of :attr:`~accounts.statements.Statements.read`.
        changes: What the transaction has changed, which the rows do not show.
        day: Today, as 2026-11-27.
        now: The time.
    """

    def __init__(self, rows: Iterable[tuple[Any, ...]], changes: Changes, day: str, now: int) -> None:
        self._changes = changes
        self._day = day
        self._funds: dict[str, Funds] = {}
        for key, account, revoked, expires, closed, prepaid, settled, held, budgets, period, spent in rows:
            if key not in self._funds:
                good = revoked is None and closed is None and (expires is None or now < expires)
                self._funds[key] = Funds(account, good, bool(prepaid), settled - held, json.loads(budgets))
            if period is not None:
                self._funds[key].spent[period] = spent

    def refusal(self, ask: HoldAsk) -> VlmError | None:
        """Why it cannot be let in; None if it can. What costs nothing is covered whatever is left."""
        funds = self._funds.get(ask.key)
        if funds is None or not funds.good or funds.account != ask.account:
            return WrongKey(WRONG_KEY)
        return (self._over_budget(ask, funds) or self._over_credits(ask, funds)) if ask.amount > 0 else None

    def _over_budget(self, ask: HoldAsk, funds: Funds) -> QuotaSpent | None:
        for period, budget in funds.budgets.items():
            name = self._row_of(period)
            left = budget - funds.spent.get(name, 0) - self._changes.spent(ask.key, name)
            if ask.amount > left:
                return QuotaSpent(f"The budget of this key {_OF[period]} does not cover the request: {_why(ask, left)}")
        return None

    def _over_credits(self, ask: HoldAsk, funds: Funds) -> QuotaSpent | None:
        left = funds.credits + self._changes.available(ask.account)
        if not funds.prepaid or ask.amount <= left:
            return None
        return QuotaSpent(f"The credits of this account do not cover the request: {_why(ask, left)}")

    def _row_of(self, period: Period) -> str:
        return {"day": self._day, "month": self._day[:7], "total": TOTAL}[period]


def _why(ask: HoldAsk, left: Nano) -> str:
    return f"it can cost up to ${dollars_of(ask.amount)}, and ${dollars_of(max(0, left))} is left."
