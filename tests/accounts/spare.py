"""Databases of PostgreSQL that are used again: emptying one takes milliseconds, and making one a hundred times as long.

One that a test has grown, or has left with other tables, is thrown away.
"""

from __future__ import annotations

import secrets

import psycopg

from accounts.schema import METADATA
from tests.accounts.servers import PostgreSQL

TEMPLATE = "template_accounts"
"""The database that all are copied from."""
MAX_GROWTH = 2 * 1024 * 1024
"""In bytes: what is larger is slower afterwards."""

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
_VERSION = "SELECT version_num FROM alembic_version"
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_SEQUENCES = "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"


class SpareDatabases:
    """Those of one server, which has :data:`TEMPLATE`."""

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server
        self._spare: list[str] = []
        with psycopg.connect(server.url(TEMPLATE)) as connection:
            self._largest = _size(connection) + MAX_GROWTH
            self._tables = connection.execute(_TABLES).fetchall()
            self._version = connection.execute(_VERSION).fetchall()
            self._settings = connection.execute("SELECT name, value FROM settings").fetchall()

    def take(self) -> str:
        """The name of a database with all tables, and nothing in them."""
        if self._spare:
            return self._spare.pop()
        name = f"test_{secrets.token_hex(6)}"
        self._server.copy(TEMPLATE, name)
        return name

    def give_back(self, name: str) -> None:
        """Empty a database, or remove it; whoever is still connected to it is so no more."""
        if self._emptied(name):
            self._spare.append(name)
        else:
            self._server.run(f"DROP DATABASE {name} WITH (FORCE)")

    def _emptied(self, name: str) -> bool:
        with psycopg.connect(self._server.url(name)) as connection:
            connection.execute(_END_OTHERS)
            if not self._is_alike(connection):
                return False
            for table in reversed(METADATA.sorted_tables):
                connection.execute(f"DELETE FROM {table.name}".encode())
            connection.execute(_SEQUENCES)
            connection.cursor().executemany("INSERT INTO settings VALUES (%s, %s)", self._settings)
        return True

    def _is_alike(self, connection: psycopg.Connection) -> bool:
        if connection.execute(_TABLES).fetchall() != self._tables or _size(connection) > self._largest:
            return False
        return connection.execute(_VERSION).fetchall() == self._version


def _size(connection: psycopg.Connection) -> int:
    found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(found[0]) if found else 0
