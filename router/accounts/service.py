"""Everything about accounts that one router process runs: opened from the settings, begun and ended with the app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Scope

from accounts import environment
from accounts.answers import Answers
from accounts.books import Books
from accounts.cashier import Cashier
from accounts.database import Database, named_url, open_database
from accounts.directory import open_directory
from accounts.migrate import require_current, upgrade
from accounts.money import nano_of
from accounts.outbox import Outbox
from accounts.types import Key
from router.accounts.access import KeyAccess, Office
from router.accounts.authentication import Authentication
from router.accounts.handlers import Accounts
from router.accounts.idempotency import LEASE_S, Idempotency
from router.accounts.keyring import Keyring
from router.accounts.last_bytes import LastBytes
from router.accounts.limits import limits_of, open_limits
from router.asgi.credentials import secret_of
from router.config import RouterConfig
from vlm.errors import VlmError


class AccountsService:
    """The accounts of one router process."""

    def __init__(self, config: RouterConfig) -> None:
        """Open the database that ``config`` names, which may wait for it.

        Raises:
            AccountsError: Accounts cannot work: a wrong URL, a database of another version, a folder of others.
            AccountsUnavailable: The database does not answer.
        """
        assert config.database_url is not None, "without a database, there are no accounts"
        self.database = opened(config.database_url, config.accounts_patience_s)
        free_credit = nano_of(config.free_credit or "0")
        directory = open_directory(self.database, free_credit=free_credit)
        if (secret := environment.bootstrap_key()) is not None:
            directory.bootstrap(secret)
        outbox = Outbox(None if config.outbox_folder is None else Path(config.outbox_folder))
        self._cashier = Cashier(self.database, outbox, config.price_list, config.accounts_patience_s)
        self._limits = open_limits(None if config.redis_url is None else _redis_url(config.redis_url))
        self._failed_keys = self._limits.failed_keys(config.failed_keys_per_minute)
        self._keyring = Keyring(directory, directory.digest, patience_s=config.accounts_patience_s)
        self._office = Office(
            self._cashier,
            outbox,
            self._limits,
            config.price_list,
            limits_of(config),
            config.price_list.digest,
        )
        answers = Answers(self.database, lease_ms=int(LEASE_S * 1000), kept_ms=config.stored_answer_s * 1000)
        self._idempotency = Idempotency(answers, self._cashier.owe, config)
        self.accounts = Accounts(directory, Books(self.database), self._keyring.refresh)

    @property
    def middleware(self) -> Middleware:
        """What asks every request for its key."""
        return Middleware(
            Authentication,
            keyring=self._keyring,
            failed_keys=self._failed_keys,
            access_of_key=self._access,
        )

    def once_each(self, endpoint: ASGIApp) -> ASGIApp:
        """``endpoint``, whose requests with an ``Idempotency-Key`` are done once for each key."""
        return LastBytes(self._idempotency.around(endpoint))

    def known_caller(self, scope: Scope, model: str) -> str | None:
        """Who asks for a model, if that is known without asking the database, and the key allows it."""
        try:
            key = self._keyring.remembered(self._keyring.digest(secret_of(scope)))
        except VlmError:
            return None
        return key.id if key is not None and key.spec.allows_model(model) else None

    @property
    def unsettled(self) -> int:
        """Number of settlements that are not in the database yet."""
        return self._cashier.unsettled

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the end of the block. What is owed then is billed, or stays in the outbox for the next process."""
        self._cashier.start()
        try:
            async with self._keyring.running(), self._idempotency.running():
                yield
        finally:
            await asyncio.to_thread(self._cashier.close)
            await self._limits.close()
            self.database.close()

    def _access(self, key: Key) -> KeyAccess:
        return KeyAccess(key, self._office)


def opened(url: str, patience_s: float) -> Database:
    """The database, with all tables. Those of SQLite are brought up to date; a server's only by command.

    Raises:
        AccountsError: It is of another version.
        AccountsUnavailable: It does not answer.
    """
    database = open_database(url, patience_s=patience_s)
    if database.dialect == "sqlite":
        upgrade(database)
    else:
        require_current(database)
    return database


def _redis_url(stated: str) -> str:
    return named_url(stated, environment.redis_url(), environment.REDIS_URL, "what counts limits")
