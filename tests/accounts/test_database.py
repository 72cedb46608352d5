"""Databases: what a transaction is on each kind, and what is said when one is away."""

from __future__ import annotations

import stat
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from accounts import environment
from accounts.database import Database, open_database
from accounts.errors import AccountsError, AccountsUnavailable
from accounts.schema import accounts, organisations, settings
from tests.accounts.servers import HOST, PostgreSQL, program, running_postgresql
from tests.listening import kept_port

SECRET = "s3cret-pa55"
SHORT_S = 0.5

needs_postgresql = pytest.mark.skipif(not program("initdb"), reason="there is no PostgreSQL on this machine")


def put(connection: Connection, name: str, value: str = "1") -> None:
    connection.execute(insert(settings), {"name": name, "value": value})


def put_each(connection: Connection, *names: str) -> None:
    for name in names:
        put(connection, name)


def value_of(connection: Connection, name: str) -> str | None:
    return connection.scalar(select(settings.c.value).where(settings.c.name == name))


def words_of(error: BaseException) -> str:
    """All that a log could show of it."""
    shown = "".join(traceback.format_exception(error))
    return shown + repr(error) + repr(error.args)


@pytest.fixture
def impatient(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url, patience_s=SHORT_S)
    yield opened
    opened.close()


def test_a_transaction_is_whole_or_not_at_all(database: Database) -> None:
    with database.begin() as connection:
        put(connection, "one")
    with pytest.raises(IntegrityError), database.begin() as connection:
        put_each(connection, "two", "one")
    with database.read() as connection:
        assert (value_of(connection, "one"), value_of(connection, "two")) == ("1", None)


def test_readers_see_one_moment_and_do_not_wait(database: Database) -> None:
    with database.read() as reading:
        assert value_of(reading, "one") is None
        with database.begin() as connection:
            put(connection, "one")
        assert value_of(reading, "one") is None
    with database.read() as reading:
        assert value_of(reading, "one") == "1"


def test_those_who_count_up_at_once_lose_nothing(database: Database, database_url: str) -> None:
    """Threads, and processes: they know nothing of each other's :class:`Database` either."""
    other = open_database(database_url)
    with database.begin() as connection:
        put(connection, "count", "0")

    def count(database: Database) -> None:
        for _ in range(20):
            with database.begin() as connection:
                row = select(settings.c.value).where(settings.c.name == "count").with_for_update()
                found = int(connection.execute(row).scalar_one())
                connection.execute(update(settings).where(settings.c.name == "count").values(value=str(found + 1)))

    threads = [threading.Thread(target=count, args=[one]) for one in (database, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert value_of(connection, "count") == "80"
    other.close()


def test_an_insert_can_be_told_what_to_do_about_rows_that_are_there(database: Database) -> None:
    for value in ("1", "2"):
        with database.begin() as connection:
            upsert = database.upsert(settings).values(name="one", value=value)
            connection.execute(upsert.on_conflict_do_update(index_elements=["name"], set_={"value": value}))
    with database.read() as connection:
        assert value_of(connection, "one") == "2"


def test_references_are_checked(database: Database) -> None:
    row = {"id": "a", "organisation_id": "none", "name": "a", "prepaid": True, "created_at": 0}
    with pytest.raises(IntegrityError), database.begin() as connection:
        connection.execute(insert(accounts), row)


@pytest.mark.parametrize("dialect", ["postgresql"])  # SQLite has no transactions that may only read
def test_reading_does_not_write(database: Database) -> None:
    with pytest.raises(AccountsUnavailable), database.read() as connection:
        put(connection, "one")


def test_a_wrong_statement_is_a_bug_and_not_a_database_that_is_away(database: Database) -> None:
    with pytest.raises(DBAPIError, match="no_such_table"), database.begin() as connection:
        connection.execute(text("SELECT * FROM no_such_table"))


def test_exceptions_show_no_parameters(database: Database) -> None:
    rows = [{"id": "org", "name": name, "created_at": 0} for name in (SECRET, "another")]
    with pytest.raises(IntegrityError) as found, database.begin() as connection:
        connection.execute(insert(organisations), rows)
    assert SECRET not in words_of(found.value)


def test_a_lock_is_not_waited_for_for_ever(database: Database, impatient: Database) -> None:
    with database.begin() as connection:
        put(connection, "one")
        with pytest.raises(AccountsUnavailable) as found, impatient.begin() as waiting:
            put(waiting, "one")
    assert "lock" in words_of(found.value)
    with impatient.begin() as connection:
        put(connection, "two")


def test_a_thread_that_writes_is_not_waited_for_for_ever(database_url: str) -> None:
    opened = open_database(database_url, patience_s=SHORT_S)
    with opened.begin() as connection:
        put(connection, "one")
        with pytest.raises(AccountsUnavailable), opened.begin() as waiting:
            put(waiting, "one")
    opened.close()


@pytest.mark.parametrize("dialect", ["postgresql"])  # SQLite waits for nothing but locks
def test_a_statement_is_not_waited_for_for_ever_but_by_people(database: Database, impatient: Database) -> None:
    sleep = text(f"SELECT pg_sleep({SHORT_S * 2})")
    with pytest.raises(AccountsUnavailable) as found, impatient.read() as connection:
        connection.execute(sleep)
    assert "too long" in words_of(found.value)
    with impatient.read(unhurried=True) as connection:
        connection.execute(sleep)
    with pytest.raises(AccountsUnavailable), impatient.read() as connection:
        connection.execute(sleep)


def test_more_transactions_than_connections_wait_in_line(impatient: Database) -> None:
    with pytest.raises(AccountsUnavailable) as found:
        _read_within(impatient, 20)
    assert "connections" in words_of(found.value)
    with impatient.read() as connection:
        assert value_of(connection, "one") is None


def _read_within(database: Database, depth: int) -> None:
    with database.read():
        if depth:
            _read_within(database, depth - 1)


def test_nothing_shows_the_url(database_url: str) -> None:
    opened = open_database(database_url)
    shown = f"{opened!r} {opened}"
    assert opened.dialect in shown
    assert "//" not in shown
    opened.close()


@pytest.mark.parametrize(
    "url",
    ["", "mysql://u:{}@host/name", "{}", "postgresql://u:{}@host:port/name", "sqlite://", "sqlite:///:memory:", "sqlite:///{}.db",
     "sqlite:////tmp/x.db?{}=1", "postgresql://u@host/name?{}=1",
     "postgresql+asyncpg://u:{}@host/name", "http://u:{}@host"],
)  # fmt: skip
def test_a_url_that_cannot_be_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(AccountsError) as found:
        open_database(url.format(SECRET))
    assert SECRET not in words_of(found.value)


def test_the_environment_may_have_the_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.DATABASE_URL, raising=False)
    with pytest.raises(AccountsError, match=environment.DATABASE_URL):
        open_database("environment")
    monkeypatch.setenv(environment.DATABASE_URL, f"sqlite:///{tmp_path}/of the environment.db")
    open_database("environment").close()
    assert (tmp_path / "of the environment.db").exists()


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    opened = open_database(f"sqlite:///{tmp_path}/new/accounts.db")
    with opened.begin() as connection:
        connection.execute(text("CREATE TABLE x (y)"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    opened.close()
    assert modes == {"accounts.db": 0o600, "accounts.db-wal": 0o600, "accounts.db-shm": 0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_file_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AccountsError, match="cannot be made"):
        open_database(f"sqlite:///{tmp_path}/file/accounts.db")


def test_what_is_committed_is_on_the_disk_of_sqlite(tmp_path: Path) -> None:
    opened = open_database(f"sqlite:///{tmp_path}/accounts.db")
    with opened.read() as connection:
        found = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")]
    opened.close()
    assert found == ["wal", 2]


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "accounts.db").write_bytes(b"no database" * 100)
    opened = open_database(f"sqlite:///{tmp_path}/accounts.db")
    with pytest.raises(AccountsUnavailable) as found, opened.read():
        pass
    opened.close()
    assert "not a database" in words_of(found.value)


@pytest.mark.parametrize("query", ["", "?options=-c%20work_mem%3D1MB", "?connect_timeout=7&sslmode=disable"])
@needs_postgresql
def test_a_server_that_is_not_there_is_said_without_the_url(query: str) -> None:
    opened = open_database(f"postgresql://kim42:{SECRET}@{HOST}:{kept_port()}/name{query}", patience_s=SHORT_S)
    with pytest.raises(AccountsUnavailable) as found, opened.read():
        pass
    words = words_of(found.value)
    assert "nothing listens" in words
    assert not any(part in words for part in (SECRET, "kim42", HOST))


def test_a_database_that_is_not_there_is_said_without_the_url(postgresql_server: PostgreSQL) -> None:
    url = f"postgresql://gigarouter:{SECRET}@{HOST}:{postgresql_server.port}/nowhere"
    opened = open_database(url)
    with pytest.raises(AccountsUnavailable) as found, opened.read():
        pass
    words = words_of(found.value)
    assert "no such database" in words
    assert not any(part in words for part in (SECRET, "nowhere"))


def test_a_server_without_tls_is_said(postgresql_server: PostgreSQL) -> None:
    opened = open_database(f"{postgresql_server.url()}?sslmode=require")
    with pytest.raises(AccountsUnavailable) as found, opened.read():
        pass
    assert "does not speak TLS" in words_of(found.value)


@needs_postgresql
def test_a_server_that_comes_back_costs_nothing_but_the_time() -> None:
    with running_postgresql() as server:
        opened = open_database(server.url())
        with opened.begin() as connection:
            connection.execute(text("CREATE TABLE x (y int)"))
        server.stop()
        server.start()
        with opened.read() as connection:
            assert connection.execute(text("SELECT y FROM x")).scalars().all() == []
        with pytest.raises(AccountsUnavailable) as found, opened.begin() as connection:
            _insert_around(connection, server.stop)
        with pytest.raises(AccountsUnavailable), opened.read():
            pass
        server.start()
        with opened.begin() as connection:
            connection.execute(text("INSERT INTO x VALUES (2)"))
        with opened.read() as connection:
            assert connection.execute(text("SELECT y FROM x")).scalars().all() == [2]
        opened.close()
    assert "shut down" in words_of(found.value) or "lost" in words_of(found.value)


def _insert_around(connection: Connection, act: Callable[[], None]) -> None:
    connection.execute(text("INSERT INTO x VALUES (1)"))
    act()
    connection.execute(text("INSERT INTO x VALUES (1)"))


@pytest.mark.parametrize("dialect", ["postgresql"])  # SQLite has no server that could take locks away
def test_a_process_that_stops_gives_its_locks_back(database: Database, impatient: Database) -> None:
    """As one does that the kernel has frozen in the middle of a transaction."""
    with pytest.raises(AccountsUnavailable) as found, impatient.begin() as connection:
        _put_slowly(connection)
    assert "idle" in words_of(found.value)
    with database.begin() as connection:
        put(connection, "one")


def _put_slowly(connection: Connection) -> None:
    put(connection, "one")
    time.sleep(SHORT_S * 4)
    put(connection, "two")
