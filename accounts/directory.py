"""The directory: organisations, their accounts, and the keys of those. Each method is one transaction.

Every change names its actor, is written to the audit log, and makes :meth:`Directory.version` another number. Knows no
money but what an account begins with, and no HTTP. Its methods wait for the database, so that an event loop calls them
in threads. All of them raise :class:`~accounts.errors.AccountsUnavailable` when it does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from accounts import audit, changes, environment, key_rows, keys, organisations
from accounts.audit import AuditEntry
from accounts.changes import Change
from accounts.clock import now_ms
from accounts.database import Database
from accounts.errors import AccountsError
from accounts.key_rows import Hashed
from accounts.keys import NewKey
from accounts.money import Nano
from accounts.pepper import pepper_of
from accounts.types import Account, Key, KeySpec, Organisation

BOOTSTRAP = "bootstrap"
"""The actor, and the name of the key."""
ADMIN = "admin"
"""The name of the organisation and of the account whose keys manage all others."""

_PAGE = 100


class Directory:
    """The organisations, accounts and keys of a database."""

    def __init__(
        self, database: Database, pepper: bytes, *, free_credit: Nano = 0, clock: Callable[[], int] = now_ms
    ) -> None:
        """Of ``database``, which has all tables.

        Args:
            pepper: What its keys are hashed with (:func:`~accounts.pepper.pepper_of`).
            free_credit: What new accounts begin with.
            clock: The time in milliseconds since 1970.
        """
        self._database = database
        self._pepper = pepper
        self._free_credit = free_credit
        self._clock = clock

    # Keys as requests bring them

    def digest(self, secret: str) -> bytes:
        """The keyed hash by which a secret is known."""
        return keys.digest(secret, self._pepper)

    def find(self, digest: bytes) -> Key | None:
        """The key whose secret has this keyed hash. It may have expired or been revoked, as when its account is closed.

        A secret that was replaced gives the key as it is, except that it expires when the time of the secret is over.
        """
        with self._database.read() as connection:
            return key_rows.find(connection, digest)

    def version(self) -> int:
        """Another number after every change."""
        with self._database.read() as connection:
            return changes.version_of(connection)

    def used(self, key_ids: Iterable[str], at: int) -> None:
        """Write down that these keys were used at a time in milliseconds since 1970. It is no change."""
        with self._database.begin() as connection:
            key_rows.used(connection, key_ids, at)

    # Organisations

    def create_organisation(self, name: str, actor: str) -> Organisation:
        """See :func:`~accounts.organisations.create_organisation`."""
        with self._changing(actor) as change:
            return organisations.create_organisation(change, name)

    def organisation(self, organisation_id: str) -> Organisation:
        """See :func:`~accounts.organisations.organisation`."""
        with self._database.read() as connection:
            return organisations.organisation(connection, organisation_id)

    def organisations(self, *, after: str | None = None, limit: int = _PAGE) -> list[Organisation]:
        """See :func:`~accounts.organisations.page_of`."""
        with self._database.read() as connection:
            return organisations.organisations(connection, after, limit)

    def close_organisation(self, organisation_id: str, actor: str) -> Organisation:
        """See :func:`~accounts.organisations.close_organisation`."""
        with self._changing(actor) as change:
            return organisations.close_organisation(change, organisation_id)

    # Accounts

    def create_account(self, organisation_id: str, name: str, actor: str, *, prepaid: bool = True) -> Account:
        """See :func:`~accounts.organisations.create_account`; it begins with the free credit."""
        with self._changing(actor) as change:
            credit = self._free_credit
            return organisations.create_account(change, organisation_id, name, prepaid=prepaid, credit=credit)

    def account(self, account_id: str) -> Account:
        """See :func:`~accounts.organisations.account`."""
        with self._database.read() as connection:
            return organisations.account(connection, account_id)

    def accounts(
        self, organisation_id: str | None = None, *, after: str | None = None, limit: int = _PAGE
    ) -> list[Account]:
        """See :func:`~accounts.organisations.page_of`."""
        with self._database.read() as connection:
            return organisations.accounts(connection, organisation_id, after, limit)

    def update_account(
        self, account_id: str, actor: str, *, name: str | None = None, prepaid: bool | None = None
    ) -> Account:
        """See :func:`~accounts.organisations.update_account`."""
        with self._changing(actor) as change:
            return organisations.update_account(change, account_id, name=name, prepaid=prepaid)

    def close_account(self, account_id: str, actor: str) -> Account:
        """See :func:`~accounts.organisations.close_account`."""
        with self._changing(actor) as change:
            return organisations.close_account(change, account_id)

    # Keys

    def create_key(self, account_id: str, spec: KeySpec, actor: str) -> NewKey:
        """See :func:`~accounts.key_rows.create_key`; its secret is made here."""
        secret = keys.new_secret()
        with self._changing(actor) as change:
            return NewKey(key_rows.create_key(change, account_id, spec, self._hashed(secret)), secret)

    def key(self, key_id: str) -> Key:
        """See :func:`~accounts.key_rows.key`."""
        with self._database.read() as connection:
            return key_rows.key(connection, key_id)

    def keys(self, account_id: str | None = None, *, after: str | None = None, limit: int = _PAGE) -> list[Key]:
        """See :func:`~accounts.organisations.page_of`."""
        with self._database.read() as connection:
            return key_rows.keys(connection, account_id, after, limit)

    def update_key(self, key_id: str, changed: Callable[[KeySpec], KeySpec], actor: str) -> Key:
        """See :func:`~accounts.key_rows.update_key`."""
        with self._changing(actor) as change:
            return key_rows.update_key(change, key_id, changed)

    def rotate_key(self, key_id: str, actor: str, *, grace_s: int = 0) -> NewKey:
        """See :func:`~accounts.key_rows.rotate_key`; the secret is made here."""
        secret = keys.new_secret()
        with self._changing(actor) as change:
            return NewKey(key_rows.rotate_key(change, key_id, self._hashed(secret), grace_s), secret)

    def revoke_key(self, key_id: str, actor: str) -> Key:
        """See :func:`~accounts.key_rows.revoke_key`."""
        with self._changing(actor) as change:
            return key_rows.revoke_key(change, key_id)

    def bootstrap(self, secret: str) -> Key:
        """The key with this secret, which is made where there is none, so that somebody can make all others.

        It belongs to the account ``admin`` of the organisation ``admin`` and has the scope ``admin``. One that is there
        stays as it is: one that was revoked is not good again when a router starts.

        Raises:
            AccountsError: The secret is not in the form of one, or the account was closed.
        """
        if not keys.looks_like_key(secret):
            raise AccountsError(f"{environment.BOOTSTRAP_KEY} must be gr- and 43 letters, digits, - and _")
        found = self.find(self.digest(secret))
        return self._made(secret) if found is None else found

    def audit_entries(
        self, subject: str | None = None, *, before: int | None = None, limit: int = _PAGE
    ) -> list[AuditEntry]:
        """See :func:`~accounts.audit.entries_of`."""
        with self._database.read() as connection:
            return audit.entries_of(connection, subject, before, limit)

    def _changing(self, actor: str) -> AbstractContextManager[Change]:
        return changes.changing(self._database, actor, self._clock())

    def _hashed(self, secret: str) -> Hashed:
        return Hashed(self.digest(secret), keys.hint_of(secret))

    def _made(self, secret: str) -> Key:
        """The key, unless another process was faster."""
        hashed = self._hashed(secret)
        with self._changing(BOOTSTRAP) as change:
            if (found := key_rows.find(change.connection, hashed.digest)) is not None:
                return found
            account = _admin_account(change)
            if account.closed_at is not None:
                raise AccountsError(f"the account {account.id} was closed, so that it gets no key to begin with")
            return key_rows.create_key(change, account.id, KeySpec(BOOTSTRAP, frozenset({"admin"})), hashed)


def _admin_account(change: Change) -> Account:
    """Made where there is none. What it does is not paid."""
    owner = organisations.organisation_named(change.connection, ADMIN)
    owner = owner or organisations.create_organisation(change, ADMIN)
    found = organisations.account_named(change.connection, owner.id, ADMIN)
    return found or organisations.create_account(change, owner.id, ADMIN, prepaid=False, credit=0)


def open_directory(database: Database, *, free_credit: Nano = 0) -> Directory:
    """The directory of a database that has all tables, with the pepper of the environment or the database.

    Raises:
        AccountsError: The pepper is not the one that the keys were made with.
        AccountsUnavailable: The database does not answer.
    """
    return Directory(database, pepper_of(database, environment.key_pepper()), free_credit=free_credit)
