"""Sends the ledger's statements as they stand, past all that SQLAlchemy does for each: every request pays for it.

Rows go in as one parameter, a list in JSON, so that a statement is the same for any number of them. Parameters are
written as question marks. Knows no table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Wording:
    """How a dialect says what the other one says differently."""

    each: str
    all_of: str
    field: str

    def rows(self, **fields: str) -> str:
        """A table of the rows of one parameter, with these fields of these types."""
        shown = ", ".join(
            self.field.format(number=number, kind=kind, name=name) for number, (name, kind) in enumerate(fields.items())
        )
        return f"(SELECT {shown} FROM {self.each}) AS r"  # noqa: S608  names of our own

    @property
    def ids(self) -> str:
        """What is in the list of one parameter."""
        return f"({self.all_of})"


SQLITE = Wording("json_each(?)", "SELECT value FROM json_each(?)", "json_extract(value, '$[{number}]') AS {name}")
POSTGRESQL = Wording(
    "json_array_elements(?::json) AS e(value)",
    "SELECT json_array_elements_text(?::json)",
    "(value ->> {number})::{kind} AS {name}",
)


class Driver(Protocol):
    """What sends statements on a connection."""

    def begin(self, *, flushed: bool) -> None:
        """Begin a transaction that writes; ``flushed`` as of :func:`transaction`."""
        ...

    def commit(self) -> None:
        """End it, and keep what it has done."""
        ...

    def roll_back(self) -> None:
        """End it, and undo what it has done."""
        ...

    def run(self, statement: str, *parameters: str | int) -> None:
        """Send a statement that gives no rows."""
        ...

    def rows(self, statement: str, *parameters: str | int) -> list[tuple[Any, ...]]:
        """Send a statement, and all rows that it gives."""
        ...


class _Sqlite:
    def __init__(self, connection: Connection) -> None:
        self._cursor = connection.connection.cursor()
        self._flushed = True

    def begin(self, *, flushed: bool) -> None:
        self._flushed = flushed
        if not flushed:
            self._cursor.execute("PRAGMA synchronous=NORMAL")
        self._cursor.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._end("COMMIT")

    def roll_back(self) -> None:
        self._end("ROLLBACK")

    def _end(self, how: str) -> None:
        self._cursor.execute(how)
        if not self._flushed:
            self._cursor.execute("PRAGMA synchronous=FULL")

    def run(self, statement: str, *parameters: str | int) -> None:
        self._cursor.execute(statement, parameters)

    def rows(self, statement: str, *parameters: str | int) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, parameters)
        return [tuple(row) for row in self._cursor.fetchall()]


def listed(rows: Sequence[object]) -> str:
    """The parameter for rows, or for ids."""
    return _encode(rows)


@contextmanager
def transaction(connection: Connection, *, flushed: bool = True) -> Iterator[None]:
    """A transaction on a connection, past SQLAlchemy as well: all that it does goes through :func:`driver_of`.

    Args:
        connection: In no transaction.
        flushed: Whether what is committed must outlive a loss of power, and not the process alone. It makes a
            difference for SQLite only; what is written later and flushed, flushes this as well.

    Raises:
        DBAPIError: See :func:`driver_of`. When it was to commit, it is not known whether it did.
    """
    with driver_of(connection) as driver:
        committed = False
        try:
            driver.begin(flushed=flushed)
            yield
            driver.commit()
            committed = True
        finally:
            if not committed:
                _undo(connection, driver)


def _undo(connection: Connection, driver: Driver) -> None:
    try:
        driver.roll_back()
    except connection.dialect.loaded_dbapi.Error:  # it was lost, or has begun nothing
        connection.invalidate()


@contextmanager
def driver_of(connection: Connection) -> Iterator[Driver]:
    """The driver of a connection; its errors are raised as SQLAlchemy's, without the parameters.

    Raises:
        DBAPIError
    """
    module = connection.dialect.loaded_dbapi
    try:
        yield _driver(connection)
    except module.Error as error:
        lost = connection.dialect.is_disconnect(error, connection.connection.dbapi_connection, None)
        if lost:
            connection.invalidate(error)
        raised = DBAPIError.instance(
            None,
            None,
            error,
            module.Error,
            hide_parameters=True,
            connection_invalidated=lost,
            dialect=connection.dialect,
        )
        raise raised from None


def _driver(connection: Connection) -> Driver:
    if connection.dialect.name == "sqlite":
        return _Sqlite(connection)
    from accounts.postgresql_driver import PostgresqlDriver  # who has SQLite does without it

    return PostgresqlDriver(connection)
