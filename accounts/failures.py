"""Tells when a database does not answer, in words of our own: a driver's may hold the URL, and so its password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from accounts.errors import AccountsUnavailable

_SQLITE = {
    5: "it is locked by another process",
    6: "it is locked by another connection",
    7: "there is no memory left",
    8: "its file may only be read",
    10: "its disk cannot be read or written",
    11: "its file is damaged",
    13: "its disk is full",
    14: "its file cannot be opened",
    26: "its file is not a database of SQLite",
}
"""By primary result code."""

_POSTGRESQL = {
    "08": "the connection was lost",
    "25006": "it may only be read, as a replica",
    "25P03": "the transaction was idle for too long",
    "28": "it refuses the user or the password",
    "3D": "there is no database of this name on the server",
    "40": "another transaction was in the way",
    "42501": "the user may not do this",
    "53": "it has no room left",
    "55P03": "another transaction holds the lock",
    "57014": "it took too long",
    "57": "it was shut down or restarts",
    "58": "its disk cannot be read or written",
}
"""By SQLSTATE, or the class that it begins with; the first that fits, the longer ones before."""

_CONNECTING = {
    "password authentication failed": "it refuses the user or the password",
    "no password supplied": "it asks for a password",
    "no pg_hba.conf entry": "it does not allow this user from here",
    "does not exist": "there is no such database or user on the server",
    "Connection refused": "nothing listens at its address",
    "could not translate host name": "its host is unknown",
    "resolve host": "its host is unknown",
    "timeout expired": "it does not answer in time",
    "starting up": "it is starting",
    "shutting down": "it is shutting down",
    "too many": "it has too many connections",
    "certificate": "its certificate is not accepted",
    "does not support SSL": "it does not speak TLS, which the URL asks for",
}
"""By what libpq says when it cannot connect, which has no SQLSTATE."""


class DatabaseSilent(Exception):
    """Why a database does not answer, for whoever operates it."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise :class:`~accounts.errors.AccountsUnavailable` in place of what a driver says of a database that is away."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        cause = cause_of(error)
        if cause is None:
            raise
        unavailable = silent(cause)
        raise unavailable from unavailable.__cause__


def silent(cause: str) -> AccountsUnavailable:
    """The error for clients, who are not told the cause: it is in ``__cause__``, for the log."""
    error = AccountsUnavailable("The accounts cannot be read now; try again.")
    error.__cause__ = DatabaseSilent(f"the database of accounts does not answer: {cause}")
    return error


def reason_of(error: AccountsUnavailable) -> str:
    """Why accounts do not answer, for whoever operates them."""
    return str(error.__cause__ if isinstance(error.__cause__, DatabaseSilent) else error)


def cause_of(error: DBAPIError | PoolTimeout) -> str | None:
    """Why the database does not answer; None where it has answered, and the statement was wrong."""
    if isinstance(error, PoolTimeout):
        return "all connections to it are in use"
    lost = "the connection was lost" if error.connection_invalidated else None
    if (code := getattr(error.orig, "sqlite_errorcode", None)) is not None:
        return _SQLITE.get(code & 0xFF)
    if (state := getattr(error.orig, "sqlstate", None)) is not None:
        return _of_state(state) or lost
    if isinstance(error, (OperationalError, InterfaceError)):
        return lost or _of_connecting(str(error.orig))
    return lost


def _of_state(state: str) -> str | None:
    return next((words for known, words in _POSTGRESQL.items() if state.startswith(known)), None)


def _of_connecting(text: str) -> str:
    return next((words for known, words in _CONNECTING.items() if known in text), "it cannot be reached")
