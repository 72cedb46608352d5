"""How each kind of database is connected to: what must hold on every connection. Knows no table."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from accounts.errors import AccountsError

_CONNECTIONS = 4
"""Kept open by one process; as many again are opened for a moment where they are needed."""

_WAL_PAUSE_S = 0.01

_IDLE_FACTOR = 3
"""A process that stops within a transaction keeps its locks for so many times the patience."""


def engine_of(url: str, patience_s: float, *, is_there: bool = False) -> Engine:
    """What connects to the database at ``url``.

    Raises:
        AccountsError: The URL is none of SQLite or PostgreSQL, or the file of SQLite cannot be made, or is to be there
            and is not.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise AccountsError("the URL of the database of accounts cannot be read") from None  # it may have a password
    if parsed.drivername == "sqlite":
        return _sqlite(parsed, patience_s, is_there)
    if parsed.drivername in ("postgresql", "postgres"):
        return _postgresql(parsed, patience_s)
    raise AccountsError("the URL of the database of accounts must begin with sqlite:/// or postgresql://")


def _sqlite(url: URL, patience_s: float, is_there: bool) -> Engine:
    if not url.database or url.database == ":memory:" or url.query:
        raise AccountsError("the database of accounts must be a file, as sqlite:////folder/accounts.db")
    if not Path(url.database).is_absolute():  # each process of Ray has a folder of its own
        raise AccountsError("the path of the database of accounts must begin with /: sqlite:////folder/accounts.db")
    if is_there and not Path(url.database).exists():
        raise AccountsError(f"there is no database {url.database}; make it with: gigarouter accounts migrate")
    _make_private(Path(url.database))
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=url.database),
        connect_args={"timeout": patience_s, "isolation_level": None},  # transactions begin below
        pool_size=_CONNECTIONS,
        max_overflow=_CONNECTIONS,
        pool_timeout=patience_s,
        hide_parameters=True,
    )
    event.listen(engine, "connect", lambda connection, _record: _prepare_sqlite(connection, patience_s))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_private(path: Path) -> None:
    """SQLite gives its other files the mode of this one."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise AccountsError(f"{path} cannot be made or written: {error.strerror}") from None


def _prepare_sqlite(connection: sqlite3.Connection, patience_s: float) -> None:
    """With ``FULL``, what was committed outlives a loss of power, not the process alone: it is money."""
    _use_wal(connection, time.monotonic() + patience_s)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Does nothing but for the first process that opens a file. Of several, SQLite lets none wait by itself."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_PAUSE_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _postgresql(url: URL, patience_s: float) -> Engine:
    _check_options(url)
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_postgresql_args(url, patience_s),
        pool_size=_CONNECTIONS,
        max_overflow=_CONNECTIONS,
        pool_timeout=patience_s,
        pool_pre_ping=True,  # a server that was restarted costs no request
        hide_parameters=True,
    )


def _check_options(url: URL) -> None:
    from psycopg import ProgrammingError  # here, so that SQLite does without
    from psycopg.conninfo import make_conninfo

    try:
        make_conninfo(**dict.fromkeys(url.query, ""))
    except ProgrammingError:  # which one is not said: it may be a part of a password that was not escaped
        words = "the URL of the database of accounts has an option (behind ?) that PostgreSQL does not have"
        raise AccountsError(words) from None


def _postgresql_args(url: URL, patience_s: float) -> dict[str, object]:
    """What the URL does not say itself. A server that vanished is noticed by the system, which has its own patience."""
    ms, whole_s = round(patience_s * 1000), max(2, math.ceil(patience_s))  # libpq takes less than 2 for 2
    timeouts = {
        "statement_timeout": ms,
        "lock_timeout": ms,
        "idle_in_transaction_session_timeout": ms * _IDLE_FACTOR,
    }
    options = " ".join(f"-c {name}={value}" for name, value in timeouts.items())
    args: dict[str, object] = {
        "connect_timeout": whole_s,
        "tcp_user_timeout": ms,
        "keepalives_idle": whole_s,
        "keepalives_interval": 1,
        "keepalives_count": whole_s,
        "application_name": "gigarouter",
    }
    own = {name: value for name, value in args.items() if name not in url.query}
    stated = url.query.get("options", "")
    return {**own, "options": f"{options} {stated if isinstance(stated, str) else ' '.join(stated)}".strip()}
