"""The databases and Redis, for tests of accounts in front of the endpoints."""

from tests.accounts.databases import (
    database,
    database_url,
    dialect,
    empty_database_url,
    postgresql_server,
    postgresql_template,
    redis_server,
    redis_url,
    sqlite_template,
)

__all__ = [
    "database",
    "database_url",
    "dialect",
    "empty_database_url",
    "postgresql_server",
    "postgresql_template",
    "redis_server",
    "redis_url",
    "sqlite_template",
]
