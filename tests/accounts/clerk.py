"""A process that does as a router: for tests that kill it.

    python -m tests.accounts.clerk work URL FOLDER LOG     asks for holds and owes what they cost until it is killed
    python -m tests.accounts.clerk hold URL FOLDER COUNT   asks for so many holds at once, and prints how many it got

In the log, "about" and a hold stand before its record is marked as owed, and "owed" after that.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import sys
import time
from pathlib import Path

from accounts.cashier import Cashier
from accounts.database import open_database
from accounts.errors import AccountsUnavailable, QuotaSpent
from accounts.outbox import Outbox
from accounts.prices import PriceList
from accounts.types import Charge, HoldAsk, Settlement
from tests.accounts.books import Owner

CHARGE = Charge("moondream-2", ("caption",), images=1, prompt_tokens=740, completion_tokens=12)
OWNER = Owner("acct_1", "key_1")
HELD_MS = 1000
TASKS = 12
COST = 7


async def work(cashier: Cashier, outbox: Outbox, log: int) -> None:
    """Until it is killed."""
    os.write(log, b"ready\n")
    await asyncio.gather(*(_ask_for_ever(cashier, outbox, log) for _ in range(TASKS)))


async def _ask_for_ever(cashier: Cashier, outbox: Outbox, log: int) -> None:
    while True:
        ask = HoldAsk(secrets.token_hex(12), OWNER.account, OWNER.key, 10, _now() + HELD_MS)
        try:
            await cashier.hold(ask)
        except AccountsUnavailable:
            os.write(log, b"unavailable -\n")
            continue
        await asyncio.sleep(random.random() * 0.02)
        await _end(cashier, outbox, log, ask)


async def _end(cashier: Cashier, outbox: Outbox, log: int, ask: HoldAsk) -> None:
    """As most requests end, or as some do."""
    settlement = Settlement(ask.id, ask.account, ask.key, COST, CHARGE, "completed", ask.id, _now(), PriceList().digest)
    chance = random.random()
    if chance < 0.1:
        cashier.give_back([ask.id])
        return
    slot = outbox.write([settlement])
    await asyncio.sleep(random.random() * 0.004)  # the last bytes are sent
    if chance < 0.2:
        slot.void()
        cashier.give_back([ask.id])
        return
    os.write(log, f"about {ask.id}\n".encode())
    slot.owed()
    os.write(log, f"owed {ask.id}\n".encode())
    cashier.owe(settlement)


async def hold(cashier: Cashier, count: int) -> None:
    """Print how many were taken and refused."""
    asks = [HoldAsk(secrets.token_hex(12), OWNER.account, OWNER.key, COST, _now() + 60_000) for _ in range(count)]
    answers = await asyncio.gather(*(cashier.hold(ask) for ask in asks), return_exceptions=True)
    print(answers.count(None), sum(isinstance(answer, QuotaSpent) for answer in answers))


def _now() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    """See the module."""
    what, url, folder, last = sys.argv[1:]
    outbox = Outbox(Path(folder))
    cashier = Cashier(open_database(url), outbox, PriceList(), 30.0 if what == "work" else 60.0)
    cashier.start()
    if what == "work":
        asyncio.run(work(cashier, outbox, os.open(last, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)))
    else:
        asyncio.run(hold(cashier, int(last)))
        cashier.close()


if __name__ == "__main__":
    main()
