"""The ledger: takes holds, settles them, and adds entries that nobody changes. Knows no HTTP and no thread.

Everything here happens in a transaction of the caller's, which has locked no account before: two that lock accounts in
different orders would wait for each other (:mod:`accounts.statements`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from accounts.database import upsert
from accounts.driver import Driver, driver_of, listed
from accounts.errors import QuotaSpent
from accounts.funds import Till
from accounts.schema import price_lists
from accounts.statements import STATEMENTS, Statements
from accounts.sums import Changes, Held, Row, kept, name_of
from accounts.types import Charge, HoldAsk, Settlement
from vlm.errors import VlmError

MS_PER_DAY = 86_400_000


def take_holds(connection: Connection, asks: Sequence[HoldAsk], now: int) -> list[VlmError | None]:
    """Keep money for requests, in order: for each the reason why not, or None where it is kept.

    What has expired counts for nothing. No two of ``asks`` have the same id.
    """
    return post(connection, asks=asks, now=now)


def settle(connection: Connection, settlements: Sequence[Settlement], now: int) -> None:
    """Bill what requests did, and give back their holds.

    A settlement whose hold has expired is billed all the same. One that is written again changes nothing, so the first
    of those of one hold counts. Of what ``failed``, no entry is made: it is counted, if its hold is there
    or there was none.
    """
    post(connection, settlements=settlements, now=now)


def release(connection: Connection, holds: Collection[str], now: int) -> None:
    """Give back holds, of which nothing is owed."""
    post(connection, released=holds, now=now)


def sweep(connection: Connection, now: int) -> int:
    """Remove the holds that have expired; how many there were."""
    with driver_of(connection) as driver:
        posting = _Posting(driver, STATEMENTS[connection.dialect.name], now)
        return posting.sweep_all()


def post(
    connection: Connection,
    *,
    settlements: Sequence[Settlement] = (),
    released: Collection[str] = (),
    asks: Sequence[HoldAsk] = (),
    now: int,
) -> list[VlmError | None]:
    """:func:`settle`, :func:`release` and :func:`take_holds` at once: what is given back can be held again."""
    with driver_of(connection) as driver:
        posting = _Posting(driver, STATEMENTS[connection.dialect.name], now)
        posting.lock([*(one.account for one in settlements), *(one.account for one in asks)], released)
        if settlements or released:
            posting.settle(_first_of_each(settlements), released)
        answers = posting.take(asks) if asks else []
        posting.write()
        return answers


class _Posting:
    """What one transaction does to the ledger: statements read, remove and enter, and sums are written at the end."""

    def __init__(self, driver: Driver, say: Statements, now: int) -> None:
        self._driver = driver
        self._say = say
        self._now = now
        self._locked: list[str] = []
        self._changes = Changes()

    def lock(self, accounts: Iterable[str], released: Collection[str] = ()) -> None:
        """Wait until nobody else changes anything of these accounts, and of those of these holds."""
        owners = self._driver.rows(self._say.owners, listed([*released])) if released else []
        self._locked = sorted({*accounts, *(account for (account,) in owners)})
        if self._say.lock is not None:
            self._driver.rows(self._say.lock, listed(self._locked))

    def settle(self, settlements: Mapping[str, Settlement], released: Collection[str]) -> None:
        """Enter what is owed and remove the holds."""
        entered = self._enter(settlements.values())
        found = self._driver.rows(self._say.release, listed([*settlements, *released]))
        held = {hold.id: hold for hold in (Held(*row) for row in found)}
        for hold in held.values():
            self._changes.release(hold)
        for settlement in settlements.values():
            self._count(settlement, held.get(settlement.hold), entered)

    def take(self, asks: Sequence[HoldAsk]) -> list[VlmError | None]:
        """Decide in order, and note the holds that are let in."""
        day = day_of(self._now)
        keys = sorted({ask.key for ask in asks})
        till = Till(self._driver.rows(self._say.read, day[:7], day, listed(keys)), self._changes, day, self._now)
        swept = False
        answers: list[VlmError | None] = []
        for ask in asks:
            refusal = till.refusal(ask)
            if isinstance(refusal, QuotaSpent) and not swept:
                self._sweep()
                swept, refusal = True, till.refusal(ask)
            if refusal is None:
                self._changes.take(ask, day)
            answers.append(refusal)
        return answers

    def sweep_all(self) -> int:
        """Remove all holds that have expired."""
        self.lock(account for (account,) in self._driver.rows(self._say.expired, self._now))
        removed = self._sweep() if self._locked else 0
        self.write()
        return removed

    def write(self) -> None:
        """Add up what has changed."""
        rows = self._changes.rows()
        if len(self._say.write) == 1:
            if any(rows):
                self._driver.run(self._say.write[0], *map(listed, rows))
            return
        for statement, some in zip(self._say.write, rows, strict=True):
            if some:
                self._driver.run(statement, listed(some))

    def _enter(self, settlements: Iterable[Settlement]) -> set[str]:
        rows = [_entry(one, one.charge) for one in settlements if one.charge is not None and one.outcome != "failed"]
        return {uid for (uid,) in self._driver.rows(self._say.enter, listed(rows))} if rows else set()

    def _count(self, settlement: Settlement, hold: Held | None, entered: Collection[str]) -> None:
        day = hold.day if hold is not None else day_of(settlement.at)
        if settlement.charge is None:
            return
        if settlement.hold in entered:
            self._changes.charge(settlement, settlement.charge, day)
        elif settlement.outcome == "failed" and (hold is not None or not settlement.was_held):
            self._changes.failed(settlement, settlement.charge, day)

    def _sweep(self) -> int:
        found = self._driver.rows(self._say.sweep, self._now, listed(self._locked))
        for row in found:
            self._changes.release(Held(*row))
        return len(found)


def keep_price_list(connection: Connection, digest: str, content: Mapping[str, Any], now: int) -> None:
    """Keep the prices that entries name by their digest, once. Before the first of them."""
    row = upsert(connection.dialect.name, price_lists)
    row = row.values(digest=digest, content=dict(content), first_used_at=now)
    connection.execute(row.on_conflict_do_nothing())


def day_of(time: int) -> str:
    """The day in UTC of a time, as 2026-11-27."""
    return _day(time // MS_PER_DAY)


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * (MS_PER_DAY // 1000), UTC).strftime("%Y-%m-%d")


def _first_of_each(settlements: Iterable[Settlement]) -> dict[str, Settlement]:
    """By hold, in order."""
    first: dict[str, Settlement] = {}
    for settlement in settlements:
        first.setdefault(settlement.hold, settlement)
    return first


def _entry(settlement: Settlement, charge: Charge) -> Row:
    """A row of the statement that enters: no text is longer than its column."""
    return [
        settlement.hold,
        settlement.account,
        settlement.key,
        -settlement.amount,
        settlement.at,
        day_of(settlement.at),
        settlement.request_id[:128],
        settlement.outcome,
        name_of(charge),
        kept(",".join(charge.tasks), 400),
        charge.images,
        charge.cached_images,
        charge.prompt_tokens,
        charge.completion_tokens,
        charge.batch,
        settlement.price_list,
    ]
