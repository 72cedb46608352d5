"""Every sum that was tampered with is told, in words."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from accounts import check, grants, ledger
from accounts.checking import differences
from accounts.database import Database
from accounts.types import Charge, HoldAsk, Settlement
from tests.accounts.books import NOON, PRICES, Owner, add_owners

OWNER = Owner("acct_1", "key_1")


@pytest.fixture
def kept(database: Database) -> Database:
    charge = Charge("m", ("caption",), images=2, prompt_tokens=5)
    settlement = Settlement("a", "acct_1", "key_1", 30, charge, "completed", "r", NOON, PRICES)
    with database.begin() as connection:
        add_owners(connection, [OWNER])
        grants.grant(connection, "acct_1", 100, note="", actor="command:test", now=NOON)
    with database.begin() as connection:
        ledger.settle(connection, [settlement], NOON)
        ledger.take_holds(connection, [HoldAsk("b", "acct_1", "key_1", 7, NOON + 1)], NOON)
    return database


@pytest.mark.parametrize(
    ("tampered", "words"),
    [
        ("UPDATE balances SET settled = 71", ["balances of acct_1: settled is 71, and must be 70"]),
        ("UPDATE balances SET held = 0", ["balances of acct_1: held is 0, and must be 7"]),
        (
            "UPDATE spending SET settled = 0 WHERE period = 'total'",
            ["spending of key_1, total: settled is 0, and must be 30"],
        ),
        (
            "UPDATE spending SET held = 8 WHERE period = '2026-11'",
            ["spending of key_1, 2026-11: held is 8, and must be 7"],
        ),
        (
            "UPDATE usage_days SET images = 3, amount = 1",
            [
                "usage_days of acct_1, 2026-11-27, key_1, m: images is 3, and must be 2",
                "usage_days of acct_1, 2026-11-27, key_1, m: amount is 1, and must be 30",
            ],
        ),
        (
            "DELETE FROM holds",
            [
                "balances of acct_1: held is 7, and must be 0",
                *(
                    f"spending of key_1, {period}: held is 7, and must be 0"
                    for period in ("2026-11", "2026-11-27", "total")
                ),
            ],
        ),
    ],
)
def test_what_differs_is_told(kept: Database, tampered: str, words: list[str]) -> None:
    assert differences(kept) == []
    with kept.begin() as connection:
        connection.execute(text(tampered))
    assert differences(kept) == words


def test_the_command_says_whether_everything_adds_up(
    kept: Database, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([database_url]) == 0
    assert capsys.readouterr().out == "everything adds up\n"
    with kept.begin() as connection:
        connection.execute(text("UPDATE balances SET settled = 71"))
    assert check.main([database_url]) == 1
    assert capsys.readouterr().out == "balances of acct_1: settled is 71, and must be 70\n"


def test_the_command_tells_when_it_cannot_say(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["postgresql://nobody:secret@127.0.0.1:1/none"]) == 2
    assert check.main([empty_database_url]) == 2
    told = capsys.readouterr().err
    assert "does not answer" in told
    assert "gigarouter accounts migrate" in told
    assert "secret" not in told
