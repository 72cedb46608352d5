"""Fixtures: databases of accounts, of each kind, and Redis. Whoever needs them imports them into a ``conftest.py``.

The same test runs on SQLite and PostgreSQL. Servers are started when the first test asks for one, once in each process
of pytest, and tests that need one are skipped where it is not installed.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from accounts.database import Database, open_database
from accounts.migrate import upgrade
from tests.accounts.servers import PostgreSQL, Redis, program, running_postgresql, running_redis
from tests.accounts.spare import TEMPLATE, SpareDatabases


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """One for all tests, which must not stop it (:func:`~tests.accounts.servers.running_postgresql` starts others)."""
    if not program("initdb"):
        pytest.skip("there is no PostgreSQL on this machine (Debian: apt install postgresql)")
    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """One for all tests, which must not stop it (:func:`~tests.accounts.servers.running_redis` starts others)."""
    if not program("redis-server"):
        pytest.skip("there is no redis-server on this machine (Debian: apt install redis-server)")
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """Of a Redis with nothing in it."""
    redis_server.clear()
    return redis_server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Each test that asks for a database runs once on each kind."""
    return cast(str, request.param)


@pytest.fixture
def empty_database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a database without tables."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'accounts.db'}"
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        name = f"test_{secrets.token_hex(6)}"
        server.copy("template1", name)
        yield server.url(name)
        server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a database with all tables, and nothing in them."""
    if dialect == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "accounts.db")
        yield f"sqlite:///{tmp_path / 'accounts.db'}"
    else:
        server: PostgreSQL = request.getfixturevalue("postgresql_server")
        databases: SpareDatabases = request.getfixturevalue("spare_databases")
        name = databases.take()
        yield server.url(name)
        databases.give_back(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """With all tables, and nothing in them."""
    opened = open_database(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables."""
    path = tmp_path_factory.mktemp("template") / "accounts.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def spare_databases(postgresql_server: PostgreSQL) -> SpareDatabases:
    """Of the server, with all tables."""
    postgresql_server.copy("template1", TEMPLATE)
    _migrate(postgresql_server.url(TEMPLATE))
    return SpareDatabases(postgresql_server)


def _migrate(url: str) -> None:
    opened = open_database(url)
    upgrade(opened)
    opened.close()
