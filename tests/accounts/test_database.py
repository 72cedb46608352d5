"""Databases: what a transaction is on each kind, and what is said when one is away."""

from __future__ import annotations

from sqlalchemy import insert, select

from accounts.database import Database
from accounts.schema import settings


def test_what_is_written_can_be_read(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(insert(settings), [{"name": "one", "value": "1"}])
    with database.read() as connection:
        assert connection.scalar(select(settings.c.value).where(settings.c.name == "one")) == "1"


def test_redis(redis_url: str) -> None:
    assert redis_url
