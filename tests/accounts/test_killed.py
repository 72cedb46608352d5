"""Processes are killed at random moments, and PostgreSQL restarts meanwhile: nothing is billed twice or lost.

What is marked as owed is billed, what is not is not, and no hold outlives its time.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from accounts import schema
from accounts.cashier import Cashier
from accounts.checking import differences
from accounts.database import Database, open_database
from accounts.errors import AccountsUnavailable
from accounts.migrate import upgrade
from accounts.outbox import Outbox
from accounts.prices import PriceList
from tests.accounts.books import add_owners
from tests.accounts.clerk import COST, OWNER
from tests.accounts.servers import program, running_postgresql

PATIENCE_S = 30.0
MANY = pytest.param(50, marks=[pytest.mark.nodes, pytest.mark.timeout(900)])


@contextmanager
def clerk(url: str, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that works; it is killed at the end."""
    before = said(log).count("ready")
    process = subprocess.Popen([sys.executable, "-m", "tests.accounts.clerk", "work", url, str(folder), str(log)])
    try:
        wait_for(lambda: said(log).count("ready") > before)
        yield process
    finally:
        process.kill()
        process.wait()


def said(log: Path) -> list[str]:
    """The first words of its lines."""
    return [line.partition(" ")[0] for line in lines(log)]


def lines(log: Path) -> list[str]:
    return log.read_text("ascii").splitlines() if log.exists() else []


def holds_of(log: Path, word: str) -> set[str]:
    return {line.partition(" ")[2] for line in lines(log) if line.startswith(word + " ")}


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def billed(database: Database) -> set[str]:
    with database.read() as connection:
        rows = connection.execute(select(schema.entries.c.uid, schema.entries.c.amount)).all()
    assert {amount for _, amount in rows} <= {-COST}
    return {uid for uid, _ in rows}


def owed_in(folder: Path) -> tuple[set[str], set[str]]:
    """What the files of ended processes say: owed, and not sent."""
    owed: set[str] = set()
    unsent: set[str] = set()
    for leftover in Outbox(folder).abandoned():
        owed |= {settlement.hold for settlement in leftover.owed}
        unsent |= set(leftover.unsent)
    return owed, unsent


def recover(database: Database, folder: Path) -> None:
    """As the next process does when it starts; then wait until no hold is left."""
    cashier = Cashier(database, Outbox(folder), PriceList(), 5.0)
    cashier.start()
    try:
        wait_for(lambda: not owed_in(folder)[0] and not owed_in(folder)[1] and not held(database))
    finally:
        cashier.close()


def held(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(schema.holds)).scalar_one()


def add_owner(database: Database) -> None:
    with database.begin() as connection:
        add_owners(connection, [OWNER])


def check(database: Database, log: Path) -> None:
    """Every answer that was sent is billed, and none that was not."""
    found = billed(database)
    assert holds_of(log, "owed") <= found <= holds_of(log, "about")
    assert differences(database) == []
    assert found


@pytest.mark.parametrize("kills", [2, MANY])
def test_what_is_owed_is_billed_once_however_often_it_is_killed(
    database: Database, database_url: str, tmp_path: Path, kills: int
) -> None:
    log, folder = tmp_path / "log", tmp_path / "outbox"
    add_owner(database)
    for _ in range(kills):
        with clerk(database_url, folder, log):
            time.sleep(random.uniform(0.05, 0.4))
        before, (owed, unsent) = billed(database), owed_in(folder)
        recover(database, folder)
        assert billed(database) == before | owed
        assert not unsent & billed(database)
    check(database, log)


@pytest.mark.parametrize("kills", [1, MANY])
def test_nothing_is_lost_while_postgresql_restarts(tmp_path: Path, kills: int) -> None:
    if not program("initdb"):
        pytest.skip("there is no PostgreSQL on this machine (Debian: apt install postgresql)")
    log, folder = tmp_path / "log", tmp_path / "outbox"
    with running_postgresql() as server:
        database = open_database(server.url())
        upgrade(database)
        add_owner(database)
        for _ in range(kills):
            with clerk(server.url(), folder, log):
                time.sleep(random.uniform(0.1, 0.5))
                server.stop()
                time.sleep(random.uniform(0.0, 0.3))
                if random.random() < 0.5:
                    server.start()
                    go_on(log)
            if not running(database):
                server.start()
            recover(database, folder)
        check(database, log)
        assert "unavailable" not in said(log), "a short restart is waited for"
        database.close()


def go_on(log: Path) -> None:
    """Wait until further requests have been served."""
    before = len(holds_of(log, "owed"))
    wait_for(lambda: len(holds_of(log, "owed")) > before)


def running(database: Database) -> bool:
    try:
        held(database)
    except AccountsUnavailable:
        return False
    return True


def test_processes_share_a_budget_exactly(database: Database, database_url: str, tmp_path: Path) -> None:
    with database.begin() as connection:
        add_owners(connection, [replace(OWNER, budgets={"day": 100 * COST})])
    command = [sys.executable, "-m", "tests.accounts.clerk", "hold", database_url, str(tmp_path / "outbox"), "150"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [tuple(map(int, process.communicate(timeout=60)[0].split())) for process in processes]
    assert [sum(column) for column in zip(*answers, strict=True)] == [100, 200]
    assert differences(database) == []
