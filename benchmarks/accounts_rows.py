"""A million entries of one account, and how long pages of usage and of the ledger take to read.

    python -m benchmarks.accounts_rows sqlite:////tmp/accounts.db
    python -m benchmarks.accounts_rows postgresql://user@host/name

The database must be empty. It gets the entries of a year, of 50 keys and 4 models, and the sums that belong to them,
past the ledger, and is added up again at the end. Each page is read ten times; what is told is the median and the
longest time, and the median of the CPU time of this process, in which SQLite runs.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from statistics import median

from accounts import usage
from accounts.checking import differences
from accounts.database import Database, open_database
from accounts.driver import driver_of
from accounts.migrate import upgrade
from tests.accounts.books import NOON, PRICES, Owner, add_owners

KEYS = 50
MODELS = ("moondream-2", "florence-2-base", "kosmos-2", "smolvlm")
DAYS = 365
MS_PER_DAY = 86_400_000
COLUMNS = (
    "uid", "account_id", "key_id", "kind", "amount", "at", "day", "request_id", "outcome", "model", "tasks", "images",
    "cached_images", "prompt_tokens", "completion_tokens", "batch", "price_list",
)  # fmt: skip
OWNERS = tuple(Owner("acct_1", f"key_{number:02}") for number in range(KEYS))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill, and print a line for each page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accounts_rows")
    parser.add_argument("url")
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    database = open_database(options.url)
    upgrade(database)
    seconds = fill(database, options.rows)
    print(f"{options.rows} entries on {database.dialect}, written in {seconds:.0f} s")
    for name, page in pages(database).items():
        print(f"{name:36} {told(page)}")
    began = time.perf_counter()
    found = differences(database)
    print(f"added up again in {time.perf_counter() - began:.1f} s:", *(found[:5] or ["nothing differs"]))
    return 1 if found else 0


def pages(database: Database) -> dict[str, Callable[[], object]]:
    """What is read."""

    def used(*by: usage.Group) -> Callable[[], object]:
        def read() -> object:
            with database.read() as connection:
                return usage.usage(connection, "acct_1", start="2026-01-01", end="2027-01-01", by=by)

        return read

    def entries(before: int | None) -> Callable[[], object]:
        def read() -> object:
            with database.read() as connection:
                return usage.entries(connection, "acct_1", before=before, limit=100)

        return read

    return {
        "usage of a year by day": used("day"),
        "usage of a year by model": used("model"),
        "usage of a year by key": used("key"),
        "usage of a year by day, model, key": used("day", "model", "key"),
        "usage of a year by day, key, model": used("day", "key", "model"),
        "the newest 100 entries": entries(None),
        "100 entries from the middle": entries(500_000),
    }


def told(page: Callable[[], object]) -> str:
    """The median and the longest time, and the median of the CPU time."""
    times, cpu = [], []
    for _ in range(10):
        began, used = time.perf_counter(), time.process_time()
        page()
        times.append(1e3 * (time.perf_counter() - began))
        cpu.append(1e3 * (time.process_time() - used))
    return f"{median(times):6.1f} ms, at most {max(times):6.1f} ms, {median(cpu):6.1f} ms of CPU"


def fill(database: Database, count: int) -> float:
    """Write the entries, and sums of them. Returns the seconds that it took."""
    began = time.perf_counter()
    with database.begin(unhurried=True) as connection:
        add_owners(connection, OWNERS)
        cursor = connection.connection.cursor()
        if database.dialect == "sqlite":
            places = ", ".join("?" for _ in COLUMNS)
            cursor.executemany(f"INSERT INTO entries ({', '.join(COLUMNS)}) VALUES ({places})", [*_rows(count)])  # noqa: S608
        else:
            with cursor.copy(f"COPY entries ({', '.join(COLUMNS)}) FROM STDIN") as copy:
                for row in _rows(count):
                    copy.write_row(row)
        with driver_of(connection) as driver:
            for statement in _sums():
                driver.run(statement)
    with database.begin(unhurried=True) as connection, driver_of(connection) as driver:
        driver.run("ANALYZE")  # as PostgreSQL does by itself after a while
    return time.perf_counter() - began


def _rows(count: int) -> Iterator[tuple[object, ...]]:
    """In order of time, as requests come."""
    rng = random.Random(1)  # noqa: S311
    for number in range(count):
        at = NOON - MS_PER_DAY * 330 + number * (DAYS * MS_PER_DAY // count)
        key, model, tokens = rng.randrange(KEYS), rng.choice(MODELS), rng.randrange(300)
        yield (
            f"{number:032x}", "acct_1", f"key_{key:02}", "charge", -rng.randrange(10**6), at, _day(at), f"req-{number}",
            "completed", model, "caption", 1, number % 2, 740, tokens, False, PRICES,
        )  # fmt: skip


def _day(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d")


def _sums() -> Iterator[str]:
    yield "UPDATE balances SET settled = (SELECT SUM(amount) FROM entries) WHERE account_id = 'acct_1'"
    for shown in ("'total'", "substr(day, 1, 7)", "day"):
        yield f"""INSERT INTO spending (key_id, period, settled, held)
            SELECT key_id, {shown}, -SUM(amount), 0 FROM entries GROUP BY 1, 2"""  # noqa: S608
    yield """INSERT INTO usage_days (account_id, day, key_id, model, requests, failed, images, cached_images,
        prompt_tokens, completion_tokens, amount)
        SELECT account_id, day, key_id, model, COUNT(*), 0, SUM(images), SUM(cached_images), SUM(prompt_tokens),
        SUM(completion_tokens), -SUM(amount) FROM entries GROUP BY 1, 2, 3, 4"""


if __name__ == "__main__":
    sys.exit(main())
