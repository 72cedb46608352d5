"""One change of an organisation, an account or a key: a transaction that is written to the audit log, and counted.

Changes follow one after the other, in all processes, so that each is decided upon what is there: they are rare. Routers
read the count, and forget what they know of keys when it has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, select, update

from accounts import audit, schema
from accounts.database import Database

KEYS_VERSION = "keys_version"
"""The setting that counts changes."""

_VERSION = select(schema.settings.c.value).where(schema.settings.c.name == KEYS_VERSION)


class Change:
    """A change that is being made.

    Attributes:
        connection: In its transaction.
        at: When, in milliseconds since 1970.
    """

    def __init__(self, connection: Connection, at: int, actor: str) -> None:
        self.connection = connection
        self.at = at
        self.recorded = 0
        self._actor = actor

    def record(self, action: str, subject: str, details: Mapping[str, Any] | None = None) -> None:
        """Write down what was done to the id ``subject``. What is not written down is not counted either."""
        audit.record(self.connection, self.at, self._actor, action=action, subject=subject, details=details)
        self.recorded += 1


@contextmanager
def changing(database: Database, actor: str, at: int) -> Iterator[Change]:
    """A change by ``actor``, which is undone by an exception, and waits for those that others are making.

    Raises:
        AccountsUnavailable: The database does not answer.
    """
    with database.begin() as connection:
        before = int(connection.execute(_VERSION.with_for_update()).scalar_one())
        change = Change(connection, at, actor)
        yield change
        if change.recorded:
            count = update(schema.settings).where(schema.settings.c.name == KEYS_VERSION)
            connection.execute(count, {"value": str(before + 1)})


def version_of(connection: Connection) -> int:
    """How many changes there were."""
    return int(connection.execute(_VERSION).scalar_one())
