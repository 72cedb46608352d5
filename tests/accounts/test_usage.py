"""Usage and entries, page by page, against what the slow ledger says."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from accounts import ledger
from accounts.database import Database
from accounts.types import Charge, Settlement
from accounts.usage import Entry, Group, UsageRow, csv_of, entries, usage
from tests.accounts.books import NOON, PRICES, Books, Owner, add_owners

DAY = 86_400_000
OWNERS = (Owner("acct_1", "key_1"), Owner("acct_1", "key_2"), Owner("acct_2", "key_3"))


@pytest.fixture
def filled(database: Database) -> tuple[Database, Books]:
    books = Books(OWNERS)
    settlements = [
        Settlement(f"h{n}", owner.account, owner.key, n, Charge("ab"[n % 2], ("caption",), n % 3), "completed", f"r{n}",
                   NOON + n % 5 * DAY, PRICES)
        for n in range(60) for owner in [OWNERS[n % 3]]
    ]  # fmt: skip
    with database.begin() as connection:
        add_owners(connection, OWNERS)
        ledger.settle(connection, settlements, NOON)
    for settlement in settlements:
        books.settle(settlement)
    return database, books


def expected(books: Books, account: str, by: tuple[Group, ...]) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """Requests, images and amount."""
    found: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for (of, day, key, model), row in books.usage().items():
        if of == account:
            names = {"day": day, "key": key, "model": model, "account": of}
            group = tuple(names[name] for name in by)
            old = found.get(group, (0, 0, 0))
            found[group] = (old[0] + row[0], old[1] + row[2], old[2] + row[6])
    return found


@pytest.mark.parametrize("by", [("day",), ("model",), ("key",), ("day", "model", "key"), ("account",), ()])
def test_usage_is_grouped(filled: tuple[Database, Books], by: tuple[Group, ...]) -> None:
    database, books = filled
    found: list[UsageRow] = []
    with database.read() as connection:
        while True:
            after = [value for name in by if (value := getattr(found[-1], name))] if found else []
            page = usage(connection, "acct_1", start="2026-11-01", end="2027-01-01", by=by, after=after, limit=3)
            found += page
            if len(page) < 3 or not by:
                break
    told = {tuple(getattr(row, name) for name in by): (row.requests, row.images, row.amount) for row in found}
    assert told == expected(books, "acct_1", by)
    assert len(told) == len(found)
    assert list(told) == sorted(told)


def test_usage_is_of_the_days_that_are_asked_for(filled: tuple[Database, Books]) -> None:
    with filled[0].read() as connection:
        rows = usage(connection, None, start="2026-11-28", end="2026-11-30")
        assert [row.day for row in rows] == ["2026-11-28", "2026-11-29"]
        assert usage(connection, None, start="2025-01-01", end="2025-02-01", by=()) == []
        (of_key,) = usage(connection, "acct_1", start="2026-11-01", end="2027-01-01", by=(), key="key_2")
    assert of_key.requests == 20


def test_entries_come_newest_first_in_pages(filled: tuple[Database, Books]) -> None:
    found: list[Entry] = []
    with filled[0].read() as connection:
        while page := entries(connection, "acct_1", before=found[-1].id if found else None, limit=7):
            found += page
    assert [one.uid for one in found] == [f"h{n}" for n in reversed(range(60)) if n % 3 != 2]
    assert found[0].batch is False


def test_csv_has_dollars_and_no_formulas(filled: tuple[Database, Books]) -> None:
    with filled[0].read() as connection:
        found = entries(connection, "acct_1", limit=1)
    told = list(csv.DictReader(io.StringIO(csv_of([replace(found[0], note="=1+1")], Entry))))
    assert (told[0]["amount"], told[0]["note"], told[0]["uid"]) == ("-0.000000058", "'=1+1", "h58")
    assert csv_of([], UsageRow, head=False) == ""
