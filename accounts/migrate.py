"""Brings a database to the version of this code, or back. Knows no table: the migrations do.

A version is a file in ``migrations/versions``. All steps of one call are one transaction, which nobody else's can
interrupt: of two processes that migrate at once, one waits, and finds that nothing is left to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from accounts.database import Database
from accounts.errors import AccountsError

COMMAND = "gigarouter accounts migrate"
BASE = "base"
"""The version before the first: no tables."""

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x6769_6761_726F_7574
"""Of PostgreSQL's advisory locks, the one that who migrates takes."""


class _Step(Protocol):
    """A command of Alembic's that changes tables."""

    def __call__(self, config: Config, revision: str, /) -> None: ...


def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the database to ``revision``.

    Raises:
        AccountsError: It is of a version that this code does not know, or ``revision`` is none.
        AccountsUnavailable: The database does not answer.
    """
    with database.begin(unhurried=True) as connection:
        _lock(database, connection)
        _run(command.upgrade, connection, revision)


def downgrade(database: Database, revision: str) -> None:
    """Bring the database back to ``revision``. What later versions keep in tables and columns of their own is lost.

    Raises:
        AccountsError, AccountsUnavailable: See :func:`upgrade`.
    """
    with database.begin(unhurried=True) as connection:
        _lock(database, connection)
        _run(command.downgrade, connection, revision)


def version_of(database: Database) -> str | None:
    """The version of the database; None where there are no tables.

    Raises:
        AccountsUnavailable: The database does not answer.
    """
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require_current(database: Database) -> None:
    """Return when the database has the version of this code.

    Raises:
        AccountsError: It has another; the message says what to do.
        AccountsUnavailable: The database does not answer.
    """
    scripts = ScriptDirectory.from_config(_config())
    found, wanted = version_of(database), scripts.get_current_head()
    if found == wanted:
        return
    if found is None:
        raise AccountsError(f"the database has no tables of accounts yet; make them with: {COMMAND}")
    _require_known(found, scripts)
    raise AccountsError(f"the database of accounts has version {found} and not {wanted}; migrate it with: {COMMAND}")


def _require_known(version: str | None, scripts: ScriptDirectory) -> None:
    if version is not None and version not in {script.revision for script in scripts.walk_revisions()}:
        raise AccountsError(
            f"the database of accounts has version {version}, which only a newer gigarouter knows: use that one, also "
            f"to bring it back with: {COMMAND} --back-to VERSION"
        )


def _lock(database: Database, connection: Connection) -> None:
    """SQLite's transactions that write exclude each other anyway."""
    if database.dialect == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _run(step: _Step, connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    found = MigrationContext.configure(connection).get_current_revision()
    _require_known(found, ScriptDirectory.from_config(config))
    try:
        step(config, revision)
    except CommandError:
        raise AccountsError(f"this gigarouter knows no version {revision} to go to from {found}") from None


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config
