"""What one transaction changes in the sums: added up here, and written once. Knows no SQL."""

from __future__ import annotations

from dataclasses import dataclass, field

from accounts.money import Nano
from accounts.types import Charge, HoldAsk, Settlement

TOTAL = "total"
Row = list[object]


@dataclass(slots=True)
class Sums:
    """Of an account, or of a key in a period."""

    settled: Nano = 0
    held: Nano = 0


@dataclass(slots=True)
class Usage:
    """Of a key and a model on a day; ``requests`` are those that have an entry."""

    requests: int = 0
    failed: int = 0
    images: int = 0
    cached_images: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    amount: Nano = 0

    def add(self, charge: Charge, amount: Nano) -> None:
        """Count what a request did."""
        self.requests += 1
        self.images += charge.images
        self.cached_images += charge.cached_images
        self.prompt_tokens += charge.prompt_tokens
        self.completion_tokens += charge.completion_tokens
        self.amount += amount

    @property
    def row(self) -> Row:
        """In the order of the table's columns."""
        return [
            self.requests, self.failed, self.images, self.cached_images, self.prompt_tokens, self.completion_tokens,
            self.amount,
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Held:
    """A hold as it was removed; ``day`` is the one on which it was taken."""

    id: str
    account: str
    key: str
    amount: Nano
    day: str


@dataclass(slots=True)
class Changes:
    """To be added to what the tables have.

    Attributes:
        balances: By account.
        spending: By key and period.
        usage: By account, day, key and model.
        taken: Holds, as rows of their table.
    """

    balances: dict[str, Sums] = field(default_factory=dict)
    spending: dict[tuple[str, str], Sums] = field(default_factory=dict)
    usage: dict[tuple[str, str, str, str], Usage] = field(default_factory=dict)
    taken: list[Row] = field(default_factory=list)

    def take(self, ask: HoldAsk, day: str) -> None:
        """Hold money."""
        self.taken.append([ask.id, ask.account, ask.key, ask.amount, day, ask.expires_at])
        self._hold(ask.account, ask.key, day, ask.amount)

    def release(self, held: Held) -> None:
        """Hold it no longer."""
        self._hold(held.account, held.key, held.day, -held.amount)

    def charge(self, settlement: Settlement, charge: Charge, day: str) -> None:
        """An entry was added."""
        self._balance(settlement.account).settled -= settlement.amount
        for period in periods(day):
            self._spent(settlement.key, period).settled += settlement.amount
        self._used(settlement, charge, day).add(charge, settlement.amount)

    def failed(self, settlement: Settlement, charge: Charge, day: str) -> None:
        """A request failed, and is not paid."""
        self._used(settlement, charge, day).failed += 1

    def spent(self, key: str, period: str) -> Nano:
        """How much more a key has spent or held in a period."""
        found = self.spending.get((key, period))
        return 0 if found is None else found.settled + found.held

    def available(self, account: str) -> Nano:
        """How much more of its credits an account can use."""
        found = self.balances.get(account)
        return 0 if found is None else found.settled - found.held

    def rows(self) -> tuple[list[Row], list[Row], list[Row], list[Row]]:
        """Rows of holds, balances, spending and usage. They are sorted: so all lock them in one order."""
        return (
            self.taken,
            [[account, sums.settled, sums.held] for account, sums in sorted(self.balances.items())],
            [[*key, sums.settled, sums.held] for key, sums in sorted(self.spending.items())],
            [[*key, *usage.row] for key, usage in sorted(self.usage.items())],
        )

    def _hold(self, account: str, key: str, day: str, amount: Nano) -> None:
        self._balance(account).held += amount
        for period in periods(day):
            self._spent(key, period).held += amount

    def _balance(self, account: str) -> Sums:
        return self.balances.setdefault(account, Sums())

    def _spent(self, key: str, period: str) -> Sums:
        return self.spending.setdefault((key, period), Sums())

    def _used(self, settlement: Settlement, charge: Charge, day: str) -> Usage:
        return self.usage.setdefault((settlement.account, day, settlement.key, name_of(charge)), Usage())


def name_of(charge: Charge) -> str:
    """The model's name as it is kept."""
    return kept(charge.model, 200)


def kept(text: str, most: int) -> str:
    """The text as a column of ``most`` characters takes it. Clients may have made it up.

    What a database refuses would hold up all that is written together with it.
    """
    return text[:most].encode("utf-8", errors="replace").decode().replace("\0", "?")


def periods(day: str) -> tuple[str, str, str]:
    """Those that a day belongs to: for ever, its month, itself."""
    return (TOTAL, day[:7], day)
