"""The databases and Redis, for all tests of accounts behind HTTP."""

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
