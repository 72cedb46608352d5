"""The books of a database as people read them, and the credits that they give. Each method is one transaction.

What requests cost, :mod:`accounts.cashier` writes. The methods wait for the database, so that an event loop calls them
in threads; all of them raise :class:`~accounts.errors.AccountsUnavailable` when it does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select

from accounts import grants, schema, usage
from accounts.clock import now_ms
from accounts.database import Database
from accounts.grants import Balance
from accounts.ledger import day_of
from accounts.money import Nano
from accounts.types import PERIODS, Period
from accounts.usage_rows import MAX_ROWS, Entry, Group, UsageRow


@dataclass(frozen=True, slots=True)
class Spent:
    """What a key has spent of a budget: what is billed, and what is held for requests that are under way."""

    settled: Nano
    held: Nano


class Books:
    """Balances, entries and usage."""

    def __init__(self, database: Database, clock: Callable[[], int] = now_ms) -> None:
        """Of ``database``; ``clock`` tells the time in milliseconds since 1970."""
        self._database = database
        self._clock = clock

    def balance(self, account: str) -> Balance:
        """See :func:`~accounts.grants.balance`."""
        with self._database.read() as connection:
            return grants.balance(connection, account)

    def spent(self, key: str) -> Mapping[Period, Spent]:
        """What a key has spent today, in this month, and ever."""
        day = day_of(self._clock())
        names: Mapping[str, Period] = {day: "day", day[:7]: "month", "total": "total"}
        sums = schema.spending.c
        query = select(sums.period, sums.settled, sums.held).where(sums.key_id == key, sums.period.in_(names))
        with self._database.read() as connection:
            found = {names[period]: Spent(settled, held) for period, settled, held in connection.execute(query)}
        return {period: found.get(period, Spent(0, 0)) for period in PERIODS}

    def give(self, account: str, kind: Literal["grant", "refund"], amount: Nano, note: str, actor: str) -> Balance:
        """What the account has after a grant or a refund (:mod:`accounts.grants`)."""
        give = grants.grant if kind == "grant" else grants.refund
        with self._database.begin() as connection:
            give(connection, account, amount, note=note, actor=actor, now=self._clock())
            return grants.balance(connection, account)

    def entries(self, account: str, *, before: int | None = None, limit: int = MAX_ROWS) -> list[Entry]:
        """See :func:`~accounts.usage.entries`."""
        with self._database.read() as connection:
            return usage.entries(connection, account, before=before, limit=limit)

    def usage(
        self,
        account: str | None,
        *,
        start: str,
        end: str,
        by: Sequence[Group],
        after: Sequence[str] = (),
        limit: int = MAX_ROWS,
    ) -> list[UsageRow]:
        """See :func:`~accounts.usage.usage`."""
        with self._database.read() as connection:
            return usage.usage(connection, account, start=start, end=end, by=by, after=after, limit=limit)
