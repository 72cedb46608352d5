"""The databases and Redis, for all tests of accounts behind HTTP."""

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
