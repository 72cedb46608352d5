"""Backups as docs/accounts.md tells to make them, while the ledger is written to, and what a restored one does."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import func, select

from accounts import ledger, schema
from accounts.checking import differences
from accounts.database import Database, open_database
from accounts.migrate import require_current
from accounts.types import Charge, HoldAsk, Settlement
from tests.accounts.books import NOON, PRICES, Owner, add_owners
from tests.accounts.servers import PostgreSQL, program

OWNER = Owner("acct_1", "key_1")
HOUR = 3_600_000


def ask(number: int) -> HoldAsk:
    return HoldAsk(f"hold_{number}", OWNER.account, OWNER.key, 100, NOON + HOUR)


def settlement(number: int) -> Settlement:
    charge = Charge("moondream-2", ("caption",), images=1, prompt_tokens=9, completion_tokens=2)
    return Settlement(
        f"hold_{number}", OWNER.account, OWNER.key, 60, charge, "completed", f"req-{number}", NOON, PRICES
    )


@contextmanager
def writing(database: Database) -> Iterator[None]:
    """Requests come and end, one after the other, until the end of the block."""
    stopped = threading.Event()

    def write() -> None:
        for number in count(1):
            if stopped.is_set():
                return
            with database.begin() as connection:
                ledger.take_holds(connection, [ask(number)], NOON)
            with database.begin() as connection:
                ledger.settle(connection, [settlement(number)] if number % 3 else [], NOON)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def entries(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(schema.entries)) or 0


def filled(database: Database) -> None:
    with database.begin() as connection:
        add_owners(connection, [OWNER])


def some_entries(database: Database, more_than: int = 0) -> None:
    end = time.monotonic() + 30
    while entries(database) <= more_than:
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def backed_up(dialect: str, url: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database that is made of a backup; the backup is made now."""
    if dialect == "sqlite":
        if (sqlite := shutil.which("sqlite3")) is None:
            pytest.skip("there is no sqlite3 on this machine (Debian: apt install sqlite3)")
        copy = folder / "copy.db"
        subprocess.run([sqlite, url.removeprefix("sqlite:///"), f".backup '{copy}'"], check=True)
        yield f"sqlite:///{copy}"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    name, dump = f"restored_{secrets.token_hex(6)}", folder / "dump"
    subprocess.run([program("pg_dump"), "--format=custom", f"--file={dump}", url], check=True)
    server.run(f"CREATE DATABASE {name}")
    for _ in range(2):  # over an empty database, and over one that has tables
        restore = [program("pg_restore"), "--clean", "--if-exists", "--exit-on-error"]
        subprocess.run([*restore, f"--dbname={server.url(name)}", str(dump)], check=True)
    yield server.url(name)
    server.run(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_backup_that_is_made_under_load_adds_up_and_goes_on(
    database: Database, database_url: str, dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    filled(database)
    with writing(database):
        some_entries(database)
        with backed_up(dialect, database_url, tmp_path, request) as url:
            copied = open_database(url)
            some_entries(database, more_than=entries(copied))
            require_current(copied)
            assert differences(copied) == []
            assert 0 < entries(copied) < entries(database)
            before, later = entries(copied), 1_000_000
            with copied.begin() as connection:
                ledger.take_holds(connection, [ask(later)], NOON)
            for _ in range(2):  # what is still in an outbox is billed once, with its hold and without
                with copied.begin() as connection:
                    ledger.settle(connection, [settlement(later), settlement(later + 1)], NOON)
            assert entries(copied) == before + 2
            assert differences(copied) == []
            copied.close()
