"""The secret with which keys are hashed: from the environment, or else the one that the database was made with.

In the environment, whoever has a copy of the database alone cannot even tell whether a secret is one of its keys.
"""

from __future__ import annotations

import hmac

from sqlalchemy import Connection, select

from accounts import schema
from accounts.database import Database
from accounts.environment import KEY_PEPPER
from accounts.errors import AccountsError
from accounts.keys import digest

PEPPER = "pepper"
MARK = "pepper_mark"
"""The setting that tells whether a pepper is the one that keys were hashed with, and not what it is."""

_MIN_CHARS = 16


def pepper_of(database: Database, stated: str | None) -> bytes:
    """The secret with which the keys of this database are hashed.

    Args:
        database: With all tables.
        stated: What the environment says.

    Raises:
        AccountsError: ``stated`` is too short, or is not what the keys that are there were hashed with: none of them
            would be known any more.
        AccountsUnavailable: The database does not answer.
    """
    if stated is not None and len(stated) < _MIN_CHARS:
        raise AccountsError(f"{KEY_PEPPER} must have at least {_MIN_CHARS} characters")
    with database.read() as connection:
        settings = _settings(connection)
    pepper = (stated if stated is not None else settings[PEPPER]).encode()
    mark = _mark_of(pepper)
    if not hmac.compare_digest(settings.get(MARK, ""), mark):
        _change_mark(database, mark)
    return pepper


def _mark_of(pepper: bytes) -> str:
    return digest("a mark, and not a key", pepper).hex()


def _settings(connection: Connection) -> dict[str, str]:
    found = connection.execute(select(schema.settings.c.name, schema.settings.c.value))
    return {row.name: row.value for row in found}


def _change_mark(database: Database, mark: str) -> None:
    with database.begin() as connection:
        known = _settings(connection).get(MARK, mark)
        has_keys = connection.execute(select(schema.keys.c.id).limit(1)).first() is not None
        if has_keys and not hmac.compare_digest(known, mark):
            raise AccountsError(
                f"the keys in this database were made with another {KEY_PEPPER}, and none would be known with this one"
            )
        upsert = database.upsert(schema.settings).values(name=MARK, value=mark)
        connection.execute(upsert.on_conflict_do_update(index_elements=["name"], set_={"value": mark}))
