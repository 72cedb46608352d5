"""A slow ledger for tests: lists that are added up again for every question, and rows for accounts and keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection, insert

from accounts import schema
from accounts.types import HoldAsk, Period, Settlement

NOON = 1_795_780_800_000
"""2026-11-27 at noon, in milliseconds."""
PRICES = "list"


@dataclass(frozen=True)
class Owner:
    """A key with its account, as a test wants it."""

    account: str
    key: str
    prepaid: bool = False
    budgets: Mapping[Period, int] = field(default_factory=dict)
    expires_at: int | None = None
    revoked_at: int | None = None
    closed_at: int | None = None


def add_owners(connection: Connection, owners: Sequence[Owner]) -> None:
    """Rows for organisation, accounts, keys, balances and a list of prices."""
    connection.execute(insert(schema.organisations), {"id": "org_1", "name": "one", "created_at": NOON})
    connection.execute(insert(schema.price_lists), {"digest": PRICES, "content": {}, "first_used_at": NOON})
    for account in dict.fromkeys(owner.account for owner in owners):
        first = next(owner for owner in owners if owner.account == account)
        row = {"id": account, "organisation_id": "org_1", "name": account, "prepaid": first.prepaid}
        connection.execute(insert(schema.accounts), {**row, "created_at": NOON, "closed_at": first.closed_at})
        connection.execute(insert(schema.balances), {"account_id": account, "settled": 0, "held": 0})
    for owner in owners:
        row = {"id": owner.key, "account_id": owner.account, "name": owner.key, "digest": owner.key.encode()}
        row |= {"hint": "gr-abcd", "scopes": ["inference"], "limits": {}, "budgets": dict(owner.budgets)}
        row |= {"created_at": NOON, "expires_at": owner.expires_at, "revoked_at": owner.revoked_at}
        connection.execute(insert(schema.keys), row)


@dataclass
class Taken:
    """A hold of the slow ledger."""

    ask: HoldAsk
    day: str


@dataclass
class Entry:
    """An entry of the slow ledger; ``settlement`` is None for credits."""

    account: str
    amount: int
    day: str = ""
    settlement: Settlement | None = None


@dataclass
class Books:
    """What the ledger does, in lists."""

    owners: Sequence[Owner]
    holds: list[Taken] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    failures: list[tuple[str, str, str, str]] = field(default_factory=list)

    def take(self, ask: HoldAsk, now: int) -> Literal["taken", "refused", "wrong"]:
        owner = next((one for one in self.owners if one.key == ask.key), None)
        if owner is None or owner.account != ask.account or owner.revoked_at is not None or owner.closed_at is not None:
            return "wrong"
        if owner.expires_at is not None and now >= owner.expires_at:
            return "wrong"
        living = [taken for taken in self.holds if taken.ask.expires_at > now]
        if ask.amount > 0 and not self._covered(ask, owner, living, day_of(now)):
            return "refused"
        self.holds.append(Taken(ask, day_of(now)))
        return "taken"

    def _covered(self, ask: HoldAsk, owner: Owner, living: Sequence[Taken], today: str) -> bool:
        for period, budget in owner.budgets.items():
            if self.spent(ask.key, period, today, living) + ask.amount > budget:
                return False
        held = sum(taken.ask.amount for taken in living if taken.ask.account == ask.account)
        return not owner.prepaid or self.settled(ask.account) - held >= ask.amount

    def spent(self, key: str, period: Period, today: str, living: Sequence[Taken]) -> int:
        """Settled and held."""
        length = {"day": 10, "month": 7, "total": 0}[period]
        paid = [
            -entry.amount for entry in self.entries
            if entry.settlement and entry.settlement.key == key and entry.day[:length] == today[:length]
        ]  # fmt: skip
        kept = [one.ask.amount for one in living if one.ask.key == key and one.day[:length] == today[:length]]
        return sum(paid) + sum(kept)

    def settled(self, account: str) -> int:
        return sum(entry.amount for entry in self.entries if entry.account == account)

    def settle(self, settlement: Settlement) -> None:
        hold = next((one for one in self.holds if one.ask.id == settlement.hold), None)
        day = hold.day if hold else day_of(settlement.at)
        known = any(entry.settlement and entry.settlement.hold == settlement.hold for entry in self.entries)
        if settlement.charge and settlement.outcome != "failed" and not known:
            self.entries.append(Entry(settlement.account, -settlement.amount, day, settlement))
        elif settlement.charge and settlement.outcome == "failed" and hold:
            self.failures.append((settlement.account, day, settlement.key, settlement.charge.model))
        self.release(settlement.hold)

    def release(self, hold: str) -> None:
        self.holds = [one for one in self.holds if one.ask.id != hold]

    def sweep(self, now: int) -> None:
        self.holds = [one for one in self.holds if one.ask.expires_at > now]

    def credit(self, account: str, amount: int) -> None:
        self.entries.append(Entry(account, amount))

    def held(self, account: str) -> int:
        return sum(one.ask.amount for one in self.holds if one.ask.account == account)

    def usage(self) -> dict[tuple[str, str, str, str], list[int]]:
        """requests, failed, images, cached images, tokens read and written, amount: by account, day, key, model."""
        found: dict[tuple[str, str, str, str], list[int]] = {}
        for entry in self.entries:
            if (one := entry.settlement) is not None and (charge := one.charge) is not None:
                row = found.setdefault((entry.account, entry.day, one.key, charge.model), [0] * 7)
                counts = (1, 0, charge.images, charge.cached_images, charge.prompt_tokens, charge.completion_tokens)
                row[:] = [old + new for old, new in zip(row, (*counts, one.amount), strict=True)]
        for failure in self.failures:
            found.setdefault(failure, [0] * 7)[1] += 1
        return found


def day_of(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).date().isoformat()
