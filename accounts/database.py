"""The database of accounts: SQLite in a file, or PostgreSQL. Opens it and makes transactions; knows no table.

What differs between the two stands here and in :mod:`accounts.engines`; whoever reads and writes tables asks for the
dialect only where SQL itself differs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from sqlalchemy import Connection, Engine, Table, text
from sqlalchemy.dialects import postgresql, sqlite

from accounts import environment
from accounts.driver import transaction
from accounts.engines import engine_of
from accounts.errors import AccountsError
from accounts.failures import silent, translated

Dialect = Literal["sqlite", "postgresql"]

ENVIRONMENT = "environment"
"""In place of a URL that may have a password: a variable of the environment has it."""

PATIENCE_S = 5.0


class Database:
    """A database of accounts. Threads may share it, and it reconnects by itself.

    Attributes:
        dialect: What speaks SQL there.
        patience_s: Longest time in seconds that a connection, a lock or a statement is waited for.
    """

    def __init__(self, engine: Engine, patience_s: float = PATIENCE_S) -> None:
        self.dialect: Dialect = "sqlite" if engine.dialect.name == "sqlite" else "postgresql"
        self.patience_s = patience_s
        self._engine = engine
        self._writing: Engine = engine
        if self.dialect == "sqlite":
            self._writing = engine.execution_options(begin="BEGIN IMMEDIATE")
            self._reading = engine.execution_options(begin="BEGIN")
            self._writer: threading.Lock | None = threading.Lock()
        else:
            self._reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._writer = None

    def __repr__(self) -> str:
        return f"<Database {self.dialect}>"  # the URL may have a password

    @contextmanager
    def begin(self, *, unhurried: bool = False) -> Iterator[Connection]:
        """A transaction that writes; it is committed at the end of the block, and undone by an exception.

        On SQLite there is one at a time, and none begins to read before it may write. On PostgreSQL there are several,
        each of which sees what others have committed (READ COMMITTED), and locks the rows that it decides upon.

        Args:
            unhurried: Whether statements may take as long as they like: for what a person waits for.

        Raises:
            AccountsUnavailable: The database does not answer, or did not when it was to commit. Then it is not known
                whether the transaction took place.
        """
        with translated(), self._only_writer(), self._writing.begin() as connection:
            self._allow_time(connection, unhurried)
            yield connection

    @contextmanager
    def keep(self) -> Iterator[Connection]:
        """A connection for one thread that makes one transaction after the other on it (:meth:`begin_on`).

        It costs less than a connection for each. When one of them finds the database silent, the connection is of no
        further use.

        Raises:
            AccountsUnavailable: The database does not answer.
        """
        with translated():
            connection = self._writing.connect()
        with connection:
            yield connection

    @contextmanager
    def begin_on(self, connection: Connection, *, flushed: bool = True) -> Iterator[None]:
        """:meth:`begin`, on a connection that is kept, for :mod:`accounts.ledger` alone: SQLAlchemy does not see it.

        Args:
            connection: Of :meth:`keep`.
            flushed: See :func:`~accounts.driver.transaction`.
        """
        with translated(), self._only_writer(), transaction(connection, flushed=flushed):
            yield

    @contextmanager
    def read(self, *, unhurried: bool = False) -> Iterator[Connection]:
        """A transaction that reads, and sees the database as it is at its first statement until its end.

        Args:
            unhurried: See :meth:`begin`.

        Raises:
            AccountsUnavailable: The database does not answer.
        """
        with translated(), self._reading.begin() as connection:
            self._allow_time(connection, unhurried)
            yield connection

    def upsert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """See :func:`upsert`."""
        return upsert(self.dialect, table)

    def close(self) -> None:
        """Close all connections that nobody uses, and the others when they are given back."""
        self._engine.dispose()

    def _allow_time(self, connection: Connection, unhurried: bool) -> None:
        if unhurried and self.dialect == "postgresql":
            connection.execute(_NO_TIMEOUTS)

    def _only_writer(self) -> AbstractContextManager[None]:
        """SQLite lets other connections look again from time to time; threads of one process wait in line instead."""
        return nullcontext() if self._writer is None else self._turn(self._writer)

    @contextmanager
    def _turn(self, writer: threading.Lock) -> Iterator[None]:
        if not writer.acquire(timeout=self.patience_s):
            raise silent("another thread writes for too long")
        try:
            yield
        finally:
            writer.release()


def upsert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An ``INSERT`` into ``table`` that can be told what to do about rows that are there already."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


_NO_TIMEOUTS = text(
    "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true),"
    " set_config('idle_in_transaction_session_timeout', '0', true)"
)


def open_database(url: str, *, patience_s: float = PATIENCE_S, is_there: bool = False) -> Database:
    """A database that is connected to when it is first used.

    Args:
        url: ``sqlite:////folder/accounts.db``, ``postgresql://user:password@host/name``, or the word ``environment``.
            The file of SQLite is made, readable by its owner alone, where there is none.
        patience_s: Longest time in seconds that a connection, a lock or a statement is waited for.
        is_there: Whether no file is made: who only looks has misspelt the name of one that is missing.

    Raises:
        AccountsError: The URL is none, or the file cannot be made, or is not there.
    """
    found = named_url(url, environment.database_url(), environment.DATABASE_URL, "the database of accounts")
    return Database(engine_of(found, patience_s, is_there=is_there), patience_s)


def named_url(stated: str, found: str | None, variable: str, what: str) -> str:
    """The URL that a setting means.

    Args:
        stated: The setting: a URL, or the word that names the environment.
        found: What the environment has.
        variable: Under which name.
        what: What the URL is of, in words.

    Raises:
        AccountsError: The setting names the environment, and the variable is not set.
    """
    if stated != ENVIRONMENT:
        return stated
    if not found:
        raise AccountsError(f"{variable} is not set; it must be the URL of {what}")
    return found
