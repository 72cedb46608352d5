"""The ledger's way to PostgreSQL: statements that are prepared once for each connection, by libpq itself.

A cursor of psycopg takes twice the CPU time for the same. The calls wait without Python's lock.
"""

from __future__ import annotations

import re
from typing import Any, cast

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Connection

_FINE = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


class PostgresqlDriver:
    """Of one connection; see :class:`~accounts.driver.Driver`."""

    def __init__(self, connection: Connection) -> None:
        self._raw = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        self._libpq = self._raw.pgconn
        self._prepared: dict[str, bytes] = connection.info.setdefault("prepared", {})

    def begin(self, *, flushed: bool) -> None:  # noqa: ARG002  what is committed here is always flushed
        """Begin a transaction that writes. Each statement sees what others have committed."""
        self._checked(self._libpq.exec_(b"BEGIN ISOLATION LEVEL READ COMMITTED"))

    def commit(self) -> None:
        """End it, and keep what it has done."""
        self._checked(self._libpq.exec_(b"COMMIT"))

    def roll_back(self) -> None:
        """End it, and undo what it has done."""
        self._checked(self._libpq.exec_(b"ROLLBACK"))

    def run(self, statement: str, *parameters: str | int) -> None:
        """Send a statement that gives no rows."""
        self._send(statement, parameters)

    def rows(self, statement: str, *parameters: str | int) -> list[tuple[Any, ...]]:
        """Send a statement, and all rows that it gives."""
        result = self._send(statement, parameters)
        loader = Transformer(self._raw)
        loader.set_pgresult(result)
        return loader.load_rows(0, result.ntuples, tuple)

    def _send(self, statement: str, parameters: tuple[str | int, ...]) -> PGresult:
        if self._libpq.transaction_status == TransactionStatus.IDLE:
            self.begin(flushed=True)  # psycopg does so with its first statement, and SQLAlchemy relies on it
        name = self._prepared.get(statement) or self._prepare(statement)
        values: list[Buffer] = [str(value).encode() for value in parameters]
        return self._checked(self._libpq.exec_prepared(name, values))

    def _prepare(self, statement: str) -> bytes:
        name = f"ledger_{len(self._prepared)}".encode()
        numbers = iter(range(1, statement.count("?") + 1))
        text = re.sub(r"\?", lambda _: f"${next(numbers)}", statement)
        self._checked(self._libpq.prepare(name, text.encode()))
        self._prepared[statement] = name
        return name

    def _checked(self, result: PGresult) -> PGresult:
        if result.status not in _FINE:
            raise error_from_result(result)
        return result
