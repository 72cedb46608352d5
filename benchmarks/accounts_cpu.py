"""CPU time of one process for the hold and the settlement of a request, on an empty database.

    python -m benchmarks.accounts_cpu sqlite:////tmp/accounts.db
    python -m benchmarks.accounts_cpu postgresql://user@host/name

It asks for a hold, writes to the outbox what an answer owes, and owes it, as the router does: one request after the
other, and 32 at once. What PostgreSQL itself needs is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from accounts.cashier import Cashier
from accounts.checking import differences
from accounts.database import open_database
from accounts.migrate import upgrade
from accounts.outbox import Outbox
from accounts.prices import PriceList
from accounts.types import Charge, HoldAsk, Settlement
from tests.accounts.books import Owner, add_owners

CHARGE = Charge("moondream-2", ("caption",), images=1, prompt_tokens=740, completion_tokens=12)
OWNER = Owner("acct_1", "key_1", budgets={"day": 10**15, "month": 10**15, "total": 10**15})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each number of requests at once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accounts_cpu")
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args(arguments)
    logging.basicConfig()
    database = open_database(options.url)
    upgrade(database)
    with database.begin() as connection:
        add_owners(connection, [OWNER])
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder))
        cashier = Cashier(database, outbox, PriceList(), 30.0)
        cashier.start()
        asyncio.run(_measure(cashier, outbox, options.requests))
        cashier.close()
    print("\n".join(differences(database) or ["everything adds up"]))
    return 0


async def _measure(cashier: Cashier, outbox: Outbox, requests: int) -> None:
    await _ask(cashier, outbox, "warm", 200)
    for at_once in (1, 32):
        began, cpu = time.perf_counter(), time.process_time()
        each = requests // at_once
        await asyncio.gather(*(_ask(cashier, outbox, f"{at_once}.{one}", each) for one in range(at_once)))
        await asyncio.sleep(0.5)  # until all is settled
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - began - 0.5
        count = each * at_once
        print(f"{at_once:3} at once: {1e3 * cpu / count:.3f} ms of CPU a request, {count / seconds:.0f} requests/s")


async def _ask(cashier: Cashier, outbox: Outbox, name: str, count: int) -> None:
    prices = PriceList().digest
    for number in range(count):
        hold, now = f"h.{name}.{number}", time.time_ns() // 1_000_000
        await cashier.hold(HoldAsk(hold, OWNER.account, OWNER.key, 1000, now + 120_000))
        settlement = Settlement(hold, OWNER.account, OWNER.key, 900, CHARGE, "completed", hold, now, prices)
        slot = outbox.write([settlement])
        slot.owed()
        cashier.owe(settlement)


if __name__ == "__main__":
    sys.exit(main())
