"""Keeps money for requests and bills what they owe, for a program with an event loop, which it never blocks.

One thread does all that writes: it takes what waits at that moment into one transaction. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable

from accounts.database import Database
from accounts.outbox import Outbox
from accounts.prices import PriceList
from accounts.types import HoldAsk, Settlement


class Cashier:
    """Between an event loop and the ledger.

    Args:
        database: Where the ledger is.
        outbox: What this process owes to it.
        price_list: The list that settlements follow; its content is kept beside the entries.
        patience_s: Longest time in seconds that a request waits for its hold.
    """

    def __init__(self, database: Database, outbox: Outbox, price_list: PriceList, patience_s: float) -> None:
        self._database = database
        self._outbox = outbox
        self._price_list = price_list
        self._patience_s = patience_s

    def start(self) -> None:
        """Begin to work, with what processes that have ended left behind."""

    def close(self) -> None:
        """Settle what is owed, if the database answers, and end. It waits, so call it in a thread.

        What could not be settled stays in the outbox.
        """

    async def hold(self, ask: HoldAsk) -> None:
        """Keep money for a request.

        Whoever is cancelled while it waits has no hold.

        Raises:
            QuotaSpent: A budget of the key, or the credits of the account, do not cover it.
            WrongKey: The key was revoked or has expired, or its account is closed.
            AccountsUnavailable: The database does not answer.
        """

    def owe(self, settlement: Settlement) -> None:
        """Bill what a request did and give back its hold, within a moment. The same one again changes nothing.

        What is not in the outbox is written there as owed, except where nothing is paid.
        """

    def give_back(self, holds: Iterable[str]) -> None:
        """Give back the holds of these ids, of which nothing is owed, within a moment."""
