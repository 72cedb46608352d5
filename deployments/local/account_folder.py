"""Accounts of the system on one machine: a folder with their database, and a first key to manage them with."""

from __future__ import annotations

from pathlib import Path

from accounts.database import open_database
from accounts.directory import open_directory
from accounts.errors import AccountsError, AccountsUnavailable
from accounts.failures import reason_of
from accounts.keys import new_secret
from accounts.migrate import upgrade
from vlm.errors import ConfigError

FILE = "accounts.db"


def prepared(folder: Path) -> tuple[str, str | None]:
    """The URL of the database in ``folder``, which is made where there is none, and then the secret of its first key.

    Raises:
        ConfigError: There cannot be a database, or it is of another version.
    """
    url = f"sqlite:///{folder.absolute() / FILE}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = open_database(url)
        try:
            upgrade(database)
            directory = open_directory(database)
            secret = None if directory.keys(limit=1) else new_secret()
            if secret is not None:
                directory.bootstrap(secret)
        finally:
            database.close()
    except AccountsUnavailable as error:
        raise _unusable(folder, reason_of(error)) from None
    except (AccountsError, OSError) as error:
        raise _unusable(folder, str(error)) from None
    return url, secret


def _unusable(folder: Path, reason: str) -> ConfigError:
    return ConfigError(f"The accounts in {folder} cannot be used: {reason}.", "accounts")


def told(url: str, secret: str | None) -> str:
    """What to tell whoever starts the system."""
    kept = f"Accounts are kept in {url.removeprefix('sqlite:///')}; every request needs a key (docs/accounts.md)."
    if secret is None:
        return kept
    return f"{kept}\nThe key that manages them, shown only now: {secret}"
