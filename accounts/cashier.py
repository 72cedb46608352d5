"""Keeps money for requests and bills what they owe, for a program with an event loop, which it never blocks.

One thread does all that writes (:mod:`accounts.teller`). Here is what the event loop calls. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from accounts.database import Database
from accounts.errors import AccountsUnavailable
from accounts.outbox import Outbox
from accounts.prices import PriceList
from accounts.teller import Answer, Teller, Waiting
from accounts.types import HoldAsk, Settlement
from vlm.errors import VlmError


class Cashier:
    """Between an event loop and the ledger.

    Args:
        database: Where the ledger is.
        outbox: What this process owes to it.
        price_list: The list that settlements follow; its content is kept beside the entries.
        patience_s: Longest time in seconds that a request waits for its hold.
    """

    def __init__(self, database: Database, outbox: Outbox, price_list: PriceList, patience_s: float) -> None:
        self._outbox = outbox
        self._teller = Teller(database, outbox, price_list)
        self._patience_s = patience_s

    def start(self) -> None:
        """Begin to work, with what processes that have ended left behind."""
        self._teller.start()

    def close(self) -> None:
        """Settle what is owed, if the database answers, and end. It waits for a few seconds, so call it in a thread.

        What could not be settled stays in the outbox, which is closed as well.
        """
        self._teller.stop()
        self._outbox.close()

    @property
    def unsettled(self) -> int:
        """Number of settlements that are not in the database yet."""
        return self._teller.unsettled

    async def hold(self, ask: HoldAsk) -> None:
        """Keep money for a request. Whoever is cancelled while it waits has no hold.

        Raises:
            QuotaSpent: A budget of the key, or the credits of the account, do not cover it.
            WrongKey: The key was revoked or has expired, or its account is closed.
            AccountsUnavailable: The database does not answer.
        """
        answer: Answer = asyncio.get_running_loop().create_future()
        self._teller.take(Waiting(ask, answer))
        try:
            async with asyncio.timeout(self._patience_s):
                refusal = await self._given(ask, answer)
        except TimeoutError:
            raise AccountsUnavailable("The accounts cannot be read now; try again.") from None
        if refusal is not None:
            raise refusal

    def owe(self, settlement: Settlement) -> None:
        """Bill what a request did and give back its hold, within a moment. The same one again changes nothing.

        What is not in the outbox is written there as owed, except where nothing is paid.
        """
        if settlement.charge is not None and settlement.outcome != "failed" and settlement.hold not in self._outbox:
            with contextlib.suppress(AccountsUnavailable):  # it is billed all the same unless this process is killed
                self._outbox.write([settlement]).owed()
        self._teller.settle(settlement)

    def give_back(self, holds: Iterable[str]) -> None:
        """Give back the holds of these ids, of which nothing is owed, within a moment."""
        self._teller.release(holds)

    async def _given(self, ask: HoldAsk, answer: Answer) -> VlmError | None:
        try:
            return await answer
        except asyncio.CancelledError:
            # One that is still to come is given back when it comes.
            if not answer.cancelled() and answer.result() is None:
                self.give_back([ask.id])
            raise
