"""The ledger against a slow one, and every rule that it keeps, by itself."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import delete, select

from accounts import grants, ledger, schema
from accounts.checking import differences
from accounts.database import Database
from accounts.errors import NotFound, QuotaSpent, WrongKey
from accounts.types import Charge, HoldAsk, Period, Settlement
from tests.accounts.books import NOON, PRICES, Books, Owner, add_owners
from vlm.errors import InvalidRequest, VlmError

HOUR = 3_600_000
CHARGE = Charge("moondream-2", ("caption", "query"), images=2, cached_images=1, prompt_tokens=740, completion_tokens=12)
OWNER = Owner("acct_1", "key_1")


def asked(number: int, amount: int, owner: Owner = OWNER, expires_at: int = NOON + HOUR) -> HoldAsk:
    return HoldAsk(f"hold_{number}", owner.account, owner.key, amount, expires_at)


def settlement(ask: HoldAsk, amount: int | None = None, at: int = NOON) -> Settlement:
    paid = ask.amount if amount is None else amount
    return Settlement(ask.id, ask.account, ask.key, paid, CHARGE, "completed", f"req-{ask.id}", at, PRICES)


def take(database: Database, asks: Sequence[HoldAsk], now: int = NOON) -> list[VlmError | None]:
    with database.begin() as connection:
        return ledger.take_holds(connection, asks, now)


def settle(database: Database, *settlements: Settlement, now: int = NOON) -> None:
    with database.begin() as connection:
        ledger.settle(connection, settlements, now)


def left(database: Database, account: str = OWNER.account) -> tuple[int, int]:
    with database.read() as connection:
        found = grants.balance(connection, account)
    return found.settled, found.held


def grant(database: Database, amount: int, account: str = OWNER.account) -> None:
    with database.begin() as connection:
        grants.grant(connection, account, amount, note="", actor="command:test", now=NOON)


def with_owners(database: Database, *owners: Owner) -> Database:
    with database.begin() as connection:
        add_owners(connection, owners)
    return database


def test_a_hold_is_kept_and_settled_once(database: Database) -> None:
    with_owners(database, OWNER)
    ask = asked(1, 100)
    assert take(database, [ask]) == [None]
    assert left(database) == (0, 100)
    for _ in range(2):
        settle(database, settlement(ask, 70), settlement(ask, 70))
        assert left(database) == (-70, 0)
    assert differences(database) == []


def test_an_entry_says_all_of_what_was_charged(database: Database) -> None:
    with_owners(database, OWNER)
    settle(database, settlement(asked(1, 70)))
    with database.read() as connection:
        row = connection.execute(select(schema.entries)).one()
    assert (row.uid, row.account_id, row.key_id, row.kind, row.amount) == ("hold_1", "acct_1", "key_1", "charge", -70)
    assert (row.at, row.day, row.request_id, row.outcome) == (NOON, "2026-11-27", "req-hold_1", "completed")
    assert (row.model, row.tasks, row.images, row.cached_images) == ("moondream-2", "caption,query", 2, 1)
    assert (row.prompt_tokens, row.completion_tokens, row.batch, row.price_list) == (740, 12, False, PRICES)


@pytest.mark.parametrize("budgets", [{"day": 100}, {"month": 100}, {"total": 100}])
def test_a_budget_is_never_passed(database: Database, budgets: dict[Period, int]) -> None:
    with_owners(database, replace(OWNER, budgets=budgets))
    answers = take(database, [asked(number, 30) for number in range(5)])
    assert [type(answer) for answer in answers] == [type(None)] * 3 + [QuotaSpent] * 2
    assert "$0.00000001 is left" in str(answers[3])
    assert take(database, [asked(9, 10)]) == [None]


def test_budgets_begin_anew_with_their_period(database: Database) -> None:
    with_owners(database, replace(OWNER, budgets={"day": 100, "month": 150}))
    settle(database, settlement(asked(1, 100)))
    tomorrow, later = NOON + 24 * HOUR, NOON + 5 * 24 * HOUR
    assert isinstance(take(database, [asked(2, 1)])[0], QuotaSpent)
    assert take(database, [asked(3, 50, expires_at=later)], tomorrow) == [None]
    assert isinstance(take(database, [asked(4, 1)], tomorrow)[0], QuotaSpent)
    assert take(database, [asked(5, 100)], later) == [None]


def test_credits_are_never_passed(database: Database) -> None:
    with_owners(database, replace(OWNER, prepaid=True))
    assert isinstance(take(database, [asked(1, 1)])[0], QuotaSpent)
    grant(database, 100)
    answers = take(database, [asked(2, 60), asked(3, 60), asked(4, 40)])
    assert [answer is None for answer in answers] == [True, False, True]
    assert take(database, [asked(5, 0)]) == [None], "what costs nothing needs no credits"


def test_what_is_given_back_can_be_held_again_in_the_same_transaction(database: Database) -> None:
    with_owners(database, replace(OWNER, budgets={"total": 100}))
    first, second = asked(1, 60), asked(2, 40)
    assert take(database, [first, second]) == [None, None]
    with database.begin() as connection:
        answers = ledger.post(
            connection, settlements=[settlement(first, 10)], released=[second.id], asks=[asked(3, 90)], now=NOON
        )
    assert answers == [None]
    assert left(database) == (-10, 90)
    assert differences(database) == []


@pytest.mark.parametrize(
    "owner",
    [replace(OWNER, revoked_at=NOON), replace(OWNER, expires_at=NOON), replace(OWNER, closed_at=NOON)],
    ids=["revoked", "expired", "closed"],
)
def test_a_key_that_is_good_no_more_holds_nothing(database: Database, owner: Owner) -> None:
    with_owners(database, owner, Owner("acct_2", "key_2"))
    asks = [asked(1, 0), HoldAsk("h", "acct_1", "key_2", 0, NOON + 1), HoldAsk("i", "acct_1", "key_3", 0, NOON + 1)]
    assert [type(answer) for answer in take(database, asks)] == [WrongKey] * 3
    assert left(database) == (0, 0)


def test_what_has_expired_counts_for_nothing(database: Database) -> None:
    with_owners(database, replace(OWNER, budgets={"total": 100}))
    ask = asked(1, 100, expires_at=NOON + 1)
    assert take(database, [ask]) == [None]
    assert isinstance(take(database, [asked(2, 1)])[0], QuotaSpent)
    assert take(database, [asked(3, 100)], NOON + 1) == [None]
    settle(database, settlement(ask))
    assert left(database) == (-100, 100), "what was done is billed, although its hold has expired"
    assert differences(database) == []


def test_holds_are_swept_when_they_have_expired(database: Database) -> None:
    with_owners(database, OWNER, Owner("acct_2", "key_2"))
    asks = [asked(1, 5, expires_at=NOON + 1), asked(2, 7, Owner("acct_2", "key_2"), NOON + 1), asked(3, 9)]
    take(database, asks)
    with database.begin() as connection:
        assert ledger.sweep(connection, NOON) == 0
        assert ledger.sweep(connection, NOON + 1) == 2
    assert (left(database), left(database, "acct_2")) == ((0, 9), (0, 0))
    assert differences(database) == []


def test_names_that_no_database_takes_are_written_all_the_same(database: Database) -> None:
    """Else all that is written together with them would have to wait until they are found."""
    with_owners(database, OWNER)
    ask = asked(1, 100)
    take(database, [ask])
    strange = replace(CHARGE, model="a\0b\ud800" + 300 * "c", tasks=("x\0",))
    settle(database, replace(settlement(ask), charge=strange))
    with database.read() as connection:
        [(model, tasks)] = connection.execute(select(schema.entries.c.model, schema.entries.c.tasks)).all()
    assert (model, tasks) == ("a?b?" + 196 * "c", "x?")
    assert differences(database) == []


def test_failures_cost_nothing_and_are_counted(database: Database) -> None:
    with_owners(database, OWNER)
    first, second = asked(1, 10), asked(2, 10)
    take(database, [first, second])
    for _ in range(2):
        settle(database, replace(settlement(first), outcome="failed"), replace(settlement(second), charge=None))
    with database.read() as connection:
        assert connection.execute(select(schema.entries)).all() == []
        row = connection.execute(select(schema.usage_days)).one()
    assert (row.requests, row.failed, row.amount) == (0, 1, 0)
    assert left(database) == (0, 0)


def test_a_request_over_midnight_is_paid_from_the_day_that_it_was_held_on(database: Database) -> None:
    with_owners(database, replace(OWNER, budgets={"day": 100}))
    ask, tomorrow = asked(1, 80, expires_at=NOON + 48 * HOUR), NOON + 24 * HOUR
    take(database, [ask])
    settle(database, settlement(ask, at=tomorrow), now=tomorrow)
    assert take(database, [asked(2, 100, expires_at=tomorrow + HOUR)], tomorrow) == [None]
    assert differences(database) == []


def test_credits_are_written_to_the_audit_log(database: Database) -> None:
    with_owners(database, OWNER)
    with database.begin() as connection:
        uid = grants.refund(connection, "acct_1", 5, note="sorry", actor="key_9", now=NOON)
    with database.read() as connection:
        row = connection.execute(select(schema.audit)).one()
        entry = connection.execute(select(schema.entries)).one()
    assert (row.actor, row.action, row.subject) == ("key_9", "credits.refund", "acct_1")
    assert row.details == {"uid": uid, "amount": "0.000000005", "note": "sorry"}
    assert (entry.uid, entry.kind, entry.amount, entry.note) == (uid, "refund", 5, "sorry")
    assert left(database) == (5, 0)


def test_credits_that_cannot_be_are_refused(database: Database) -> None:
    with_owners(database, OWNER)
    with pytest.raises(NotFound):
        grant(database, 1, "acct_9")
    for amount in (0, 2**62 + 1):
        with pytest.raises(InvalidRequest):
            grant(database, amount)
    with database.begin() as connection, pytest.raises(InvalidRequest):
        grants.refund(connection, "acct_1", -1, note="", actor="key_9", now=NOON)
    assert left(database) == (0, 0)


# Against the slow ledger

OWNERS = (
    Owner("acct_1", "key_1", budgets={"day": 60, "month": 100, "total": 200}),
    Owner("acct_1", "key_2"),
    Owner("acct_2", "key_3", prepaid=True, budgets={"day": 100}),
    Owner("acct_2", "key_4", prepaid=True, expires_at=NOON + 20 * HOUR),
    Owner("acct_3", "key_5", revoked_at=NOON),
)
AMOUNTS = st.integers(0, 50)
OUTCOMES: st.SearchStrategy[Literal["completed", "failed", "abandoned"]] = st.sampled_from(
    ["completed", "failed", "abandoned"]
)
CHARGES = st.builds(Charge, st.sampled_from(["a", "b"]), st.just(("caption",)), AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
TABLES = ("entries", "holds", "spending", "usage_days", "audit", "balances", "keys", "accounts", "organisations")


class Interleaved(RuleBasedStateMachine):
    """Random holds, settlements, expiries and credits, on a database and in the slow ledger."""

    database: Database

    @initialize()
    def empty(self) -> None:
        self.now = NOON
        self.numbers = itertools.count()
        self.books = Books(OWNERS)
        self.asks: list[HoldAsk] = []
        with self.database.begin() as connection:
            for name in (*TABLES, "price_lists"):
                connection.execute(delete(schema.METADATA.tables[name]))
            add_owners(connection, OWNERS)

    def some_settlements(self, data: st.DataObject) -> list[Settlement]:
        """Of holds that are there, and of some that were settled or have expired long ago."""
        chosen = data.draw(st.lists(st.sampled_from(self.asks), max_size=4)) if self.asks else []
        made: dict[str, Settlement] = {}
        for ask in chosen:
            outcome = data.draw(OUTCOMES)
            charge = data.draw(st.none() | CHARGES)
            paid = data.draw(st.integers(0, ask.amount)) if charge and outcome != "failed" else 0
            base = settlement(ask, paid, self.now)
            made.setdefault(ask.id, replace(base, charge=charge, outcome=outcome))
        return [*made.values(), *([next(iter(made.values()))] if made else [])]

    @rule(data=st.data())
    def post(self, data: st.DataObject) -> None:
        settlements = self.some_settlements(data)
        released = data.draw(st.lists(st.sampled_from([ask.id for ask in self.asks]), max_size=2)) if self.asks else []
        asks = [
            HoldAsk(f"hold_{next(self.numbers)}", owner.account, owner.key, amount, self.now + lasts)
            for owner, amount, lasts in data.draw(
                st.lists(st.tuples(st.sampled_from(OWNERS), AMOUNTS, st.sampled_from([1, 10 * HOUR])), max_size=4)
            )
        ]
        with self.database.begin() as connection:
            answers = ledger.post(connection, settlements=settlements, released=released, asks=asks, now=self.now)
        for one in {each.hold: each for each in reversed(settlements)}.values():
            self.books.settle(one)
        for hold in released:
            self.books.release(hold)
        kinds = {type(None): "taken", QuotaSpent: "refused", WrongKey: "wrong"}
        assert [kinds[type(answer)] for answer in answers] == [self.books.take(ask, self.now) for ask in asks]
        self.asks += [ask for ask, answer in zip(asks, answers, strict=True) if answer is None]

    @rule(hours=st.sampled_from([1, 7, 24, 24 * 31]))
    def wait(self, hours: int) -> None:
        self.now += hours * HOUR

    @rule()
    def sweep(self) -> None:
        with self.database.begin() as connection:
            ledger.sweep(connection, self.now)
        self.books.sweep(self.now)

    @rule(amount=st.integers(-20, 100).filter(bool), account=st.sampled_from(["acct_1", "acct_2"]))
    def credit(self, amount: int, account: str) -> None:
        grant(self.database, amount, account)
        self.books.credit(account, amount)

    @invariant()
    def everything_adds_up(self) -> None:
        if not hasattr(self, "books"):
            return
        assert differences(self.database) == []
        with self.database.read() as connection:
            there = set(connection.execute(select(schema.holds.c.id)).scalars())
            swept = [taken for taken in self.books.holds if taken.ask.id not in there]
            assert all(taken.ask.expires_at <= self.now for taken in swept), "no hold ends before it has expired"
            for taken in swept:
                self.books.release(taken.ask.id)
            for account in ("acct_1", "acct_2", "acct_3"):
                found = grants.balance(connection, account)
                assert (found.settled, found.held) == (self.books.settled(account), self.books.held(account))
            rows = {tuple(row[:4]): list(row[4:]) for row in connection.execute(select(schema.usage_days))}
        assert rows == self.books.usage()


def test_it_does_as_the_slow_ledger(database: Database, pytestconfig: pytest.Config) -> None:
    machine = type("OnThisDatabase", (Interleaved,), {"database": database})
    thorough = settings.default is not None and settings.default.max_examples > 40
    run_state_machine_as_test(
        machine, settings=settings(max_examples=200 if thorough else 12, stateful_step_count=12, deadline=None)
    )


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12))
def test_no_order_of_amounts_passes_a_budget(amounts: list[tuple[int, int]]) -> None:
    books = Books([replace(OWNER, budgets={"total": 100})])
    for number, (held, paid) in enumerate(amounts):
        ask = asked(number, held)
        if books.take(ask, NOON) == "taken":
            books.settle(settlement(ask, min(held, paid)))
    assert -books.settled(OWNER.account) <= 100


# At the same time


@pytest.mark.parametrize("kind", ["day", "month", "total", "credits"])
def test_of_300_holds_at_once_exactly_as_many_are_taken_as_are_paid_for(database: Database, kind: str) -> None:
    owner = replace(OWNER, prepaid=True) if kind == "credits" else replace(OWNER, budgets={kind: 100 * 7})  # type: ignore[dict-item]
    with_owners(database, owner)
    if kind == "credits":
        grant(database, 100 * 7)
    outcomes: Counter[str] = Counter()

    def ask_for(numbers: range) -> None:
        for number in numbers:
            (answer,) = take(database, [asked(number, 7)])
            outcomes[type(answer).__name__] += 1
            if answer is None and number % 3 == 0:
                settle(database, settlement(asked(number, 7)))

    threads = [threading.Thread(target=ask_for, args=(range(start, 300, 6),)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"NoneType": 100, "QuotaSpent": 200}
    assert differences(database) == []
