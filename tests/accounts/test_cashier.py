"""The cashier, on an event loop: it takes, bills and gives back, whoever leaves and whatever the database does."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, text

from accounts import grants, schema, teller
from accounts.cashier import Cashier
from accounts.checking import differences
from accounts.database import Database, open_database
from accounts.errors import AccountsUnavailable, QuotaSpent, WrongKey
from accounts.outbox import Outbox
from accounts.prices import ModelPrices, PriceList
from accounts.types import Charge, HoldAsk, Settlement
from tests.accounts.books import Owner, add_owners

OWNER = Owner("acct_1", "key_1", budgets={"total": 700})
PRICE_LIST = PriceList({"m": ModelPrices(5, 5)}, "autumn")
PATIENCE_S = 20.0


def asked(name: str, amount: int = 7, lasts_ms: int = 60_000) -> HoldAsk:
    return HoldAsk(name, OWNER.account, OWNER.key, amount, time.time_ns() // 1_000_000 + lasts_ms)


def owed(name: str, amount: int = 7) -> Settlement:
    now, charge = time.time_ns() // 1_000_000, Charge("m", ("caption",), 1)
    return Settlement(name, OWNER.account, OWNER.key, amount, charge, "completed", name, now, PRICE_LIST.digest)


def run(
    database: Database, folder: Path, work: Callable[[Cashier, Outbox], Awaitable[None]], patience_s: float = PATIENCE_S
) -> None:
    """With a cashier, which has settled everything at the end."""
    outbox = Outbox(folder)
    cashier = Cashier(database, outbox, PRICE_LIST, patience_s)
    cashier.start()
    try:
        asyncio.run(work(cashier, outbox))  # type: ignore[arg-type]
    finally:
        cashier.close()


def left(database: Database) -> tuple[int, int]:
    with database.read() as connection:
        found = grants.balance(connection, OWNER.account)
    return found.settled, found.held


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def owned(database: Database) -> Database:
    with database.begin() as connection:
        add_owners(connection, [OWNER, Owner("acct_2", "key_2", revoked_at=1)])
    return database


def test_it_takes_and_bills(owned: Database, tmp_path: Path) -> None:
    async def work(cashier: Cashier, outbox: Outbox) -> None:
        await cashier.hold(asked("a"))
        assert left(owned) == (0, 7)
        slot = outbox.write([owed("a", 5)])
        slot.owed()
        for _ in range(3):
            cashier.owe(owed("a", 5))
        await until(lambda: left(owned) == (-5, 0))
        await until(lambda: not cashier.unsettled and not len(outbox))
        with pytest.raises(WrongKey):
            await cashier.hold(replace(asked("b"), account="acct_2", key="key_2"))
        with pytest.raises(QuotaSpent):
            await cashier.hold(asked("c", 696))
        await cashier.hold(asked("d", 695))
        cashier.give_back(["d"])

    run(owned, tmp_path, work)
    assert left(owned) == (-5, 0)
    assert differences(owned) == []
    with owned.read() as connection:
        row = connection.execute(select(schema.price_lists).where(schema.price_lists.c.digest != "list")).one()
    assert (row.digest, row.content) == (PRICE_LIST.digest, PRICE_LIST.json())
    assert not list(tmp_path.rglob("*.outbox"))


def test_300_at_once_share_a_budget_for_100(owned: Database, tmp_path: Path) -> None:
    async def work(cashier: Cashier, outbox: Outbox) -> None:
        async def ask(number: int) -> bool:
            try:
                await cashier.hold(asked(str(number)))
            except QuotaSpent:
                return False
            await asyncio.sleep(0.001 * (number % 7))
            cashier.owe(owed(str(number)))
            return True

        assert sum(await asyncio.gather(*map(ask, range(300)))) == 100

    run(owned, tmp_path, work)
    assert left(owned) == (-700, 0)
    assert differences(owned) == []


def test_what_is_about_to_be_given_back_makes_room(owned: Database, tmp_path: Path) -> None:
    async def work(cashier: Cashier, outbox: Outbox) -> None:
        for number in range(20):
            await cashier.hold(asked(f"a{number}", 700 - number))
            if number % 2:
                cashier.give_back([f"a{number}"])
            else:
                cashier.owe(owed(f"a{number}", 1))

    run(owned, tmp_path, work)
    assert left(owned) == (-10, 0)


def test_who_leaves_while_it_waits_holds_nothing(owned: Database, tmp_path: Path) -> None:
    async def work(cashier: Cashier, outbox: Outbox) -> None:
        for turn in range(30):
            tasks = [asyncio.create_task(cashier.hold(asked(f"{turn}.{number}", 1))) for number in range(4)]
            await asyncio.sleep(0.0003 * turn)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            cashier.give_back(f"{turn}.{number}" for number, one in enumerate(ended) if one is None)

    run(owned, tmp_path, work)
    assert left(owned) == (0, 0)
    assert differences(owned) == []


@contextmanager
def locked(database_url: str) -> Iterator[None]:
    """Another process that keeps the account to itself."""
    other = open_database(database_url)
    with other.begin(unhurried=True) as connection:
        connection.execute(text("UPDATE balances SET held = held WHERE account_id = 'acct_1'"))
        yield
    other.close()


def test_while_the_database_is_silent_holds_wait_and_settlements_stay(
    owned: Database, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = open_database(database_url, patience_s=0.3)

    async def work(cashier: Cashier, outbox: Outbox) -> None:
        await cashier.hold(asked("a"))
        with locked(database_url):
            outbox.write([owed("a")]).owed()
            cashier.owe(owed("a"))
            waits = asyncio.create_task(cashier.hold(asked("b")))
            await asyncio.sleep(0.5)
            assert len(outbox) == 1
            assert not waits.done()
        await waits
        cashier.give_back(["b"])
        await until(lambda: left(owned) == (-7, 0))

    with caplog.at_level(logging.INFO, "accounts"):
        run(impatient, tmp_path, work)
    impatient.close()
    assert differences(owned) == []
    messages = [record.message for record in caplog.records]
    assert any("does not answer" in message for message in messages)
    assert any("answers again" in message for message in messages)
    assert not any("postgres" in message or str(tmp_path) in message for message in messages)


def test_patience_ends(owned: Database, database_url: str, tmp_path: Path) -> None:
    async def work(cashier: Cashier, outbox: Outbox) -> None:
        with locked(database_url):
            began = time.monotonic()
            with pytest.raises(AccountsUnavailable):
                await cashier.hold(asked("a"))
            assert time.monotonic() - began < 3
        await until(lambda: not outbox and left(owned) == (0, 0))
        cashier.owe(owed("b"))

    run(owned, tmp_path, work, patience_s=0.3)
    assert left(owned) == (-7, 0)
    assert differences(owned) == []


def test_what_the_database_will_not_have_stops_nothing_else(
    owned: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(cashier: Cashier, outbox: Outbox) -> None:
        await asyncio.gather(*(cashier.hold(asked(name)) for name in "abc"))
        for name in "abc":
            prices = "unknown" if name == "b" else PRICE_LIST.digest
            cashier.owe(replace(owed(name), price_list=prices))
        await until(lambda: not cashier.unsettled)
        assert "b" in outbox

    run(owned, tmp_path, work)
    assert left(owned) == (-14, 7)
    assert [record.levelname for record in caplog.records if "set aside: ['b']" in record.message] == ["ERROR"]
    assert len(list(tmp_path.rglob("*.outbox"))) == 1, "it is kept for who can tell what is wrong"


def test_it_settles_what_others_left_and_no_other_database_has(
    owned: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def hold(cashier: Cashier, outbox: Outbox) -> None:
        await asyncio.gather(*(cashier.hold(asked(name)) for name in ("mine", "unsent")))

    run(owned, tmp_path / "elsewhere", hold)
    for name, account in (("mine", "acct_1"), ("theirs", "acct_9")):
        ended = Outbox(tmp_path)
        ended.write([replace(owed(name), account=account)]).owed()
        ended.write([owed("unsent" if name == "mine" else "unknown")])
        ended.close()
    damaged = Outbox(tmp_path)
    damaged.write([owed("good"), replace(owed("bad"), price_list="unknown"), owed("fine")]).owed()
    damaged.close()

    async def work(cashier: Cashier, outbox: Outbox) -> None:
        await until(lambda: left(owned) == (-21, 0))

    run(owned, tmp_path, work)
    assert len(list(tmp_path.rglob("*.outbox"))) == 2
    assert any("another database" in record.message for record in caplog.records)
    assert any("stays: ['bad']" in record.message for record in caplog.records)
    assert differences(owned) == []


def test_holds_that_nobody_ends_are_swept(owned: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teller, "SWEEP_EVERY_S", 0.05)

    async def work(cashier: Cashier, outbox: Outbox) -> None:
        await cashier.hold(asked("a", lasts_ms=50))
        await until(lambda: left(owned) == (0, 0))

    run(owned, tmp_path, work)


def test_a_closed_event_loop_leaves_no_hold_behind(owned: Database, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    cashier = Cashier(owned, outbox, PRICE_LIST, PATIENCE_S)

    async def leave() -> None:
        task = asyncio.create_task(cashier.hold(asked("a")))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    gc.collect()
    cashier.start()
    time.sleep(0.1)
    cashier.close()
    with owned.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.holds)).scalar_one() == 0


@pytest.mark.parametrize("stays", [True, False])
def test_a_commit_of_which_nobody_heard_holds_once(
    owned: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    heard = iter([False, False])
    begin_on = owned.begin_on
    tasks: list[asyncio.Task[None]] = []

    @contextmanager
    def unheard(connection: Connection, *, flushed: bool = True) -> Iterator[None]:
        with begin_on(connection, flushed=flushed):
            yield
        if tasks and not next(heard, True):
            if not stays:
                tasks[0].get_loop().call_soon_threadsafe(tasks[0].cancel)
                time.sleep(0.1)
            raise AccountsUnavailable("the connection was lost")

    monkeypatch.setattr(owned, "begin_on", unheard)

    async def work(cashier: Cashier, outbox: Outbox) -> None:
        tasks.append(asyncio.create_task(cashier.hold(asked("a"))))
        (ended,) = await asyncio.gather(*tasks, return_exceptions=True)
        assert (ended is None) == stays
        await until(lambda: left(owned) == (0, 7 if stays else 0))

    run(owned, tmp_path, work)
    assert differences(owned) == []


def test_who_leaves_in_the_moment_of_the_answer_holds_nothing(
    owned: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(cashier: Cashier, outbox: Outbox) -> None:
        task = asyncio.create_task(cashier.hold(asked("a")))

        def and_leave(answers: Sequence[teller.Answered]) -> None:
            answer(answers)
            task.cancel()

        answer = cashier._teller._answer
        monkeypatch.setattr(cashier._teller, "_answer", and_leave)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(owned, tmp_path, work)
    assert left(owned) == (0, 0)
