"""What the environment tells accounts: secrets, which must stand in no file of settings. Nothing else of it is read."""

from __future__ import annotations

import os

DATABASE_URL = "GIGAROUTER_DATABASE_URL"
REDIS_URL = "GIGAROUTER_REDIS_URL"
KEY_PEPPER = "GIGAROUTER_KEY_PEPPER"
BOOTSTRAP_KEY = "GIGAROUTER_BOOTSTRAP_KEY"


def database_url() -> str | None:
    """The URL of the database, which may have a password."""
    return os.environ.get(DATABASE_URL)


def redis_url() -> str | None:
    """The URL of the Redis or Valkey that counts limits, which may have a password."""
    return os.environ.get(REDIS_URL)


def key_pepper() -> str | None:
    """The secret with which keys are hashed; None where the database keeps it."""
    return os.environ.get(KEY_PEPPER)


def bootstrap_key() -> str | None:
    """The secret of a key that is to exist and manages all accounts."""
    return os.environ.get(BOOTSTRAP_KEY)
