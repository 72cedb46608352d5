"""The databases and Redis, for all tests of accounts behind HTTP, and a router that charges."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.accounts.databases import (
    database,
    database_url,
    dialect,
    empty_database_url,
    postgresql_server,
    redis_server,
    redis_url,
    spare_databases,
    sqlite_template,
)
from tests.router.accounts.bank import Bank, bank
from tests.router.composition.world import Models

__all__ = [
    "database",
    "database_url",
    "dialect",
    "empty_database_url",
    "postgresql_server",
    "redis_server",
    "redis_url",
    "spare_databases",
    "sqlite_template",
]


@pytest.fixture
def models() -> Models:
    """What answers behind ``shop``."""
    return Models()


@pytest.fixture
async def shop(
    monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path, models: Models
) -> AsyncIterator[Bank]:
    """A router with accounts in a database of each kind."""
    async with bank(monkeypatch, database_url, tmp_path, models) as found:
        yield found
