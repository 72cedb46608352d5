"""Migrations: they make what :mod:`accounts.schema` says, lose nothing on the way, and are not made twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, insert, inspect, select, text

from accounts.database import Database, open_database
from accounts.errors import AccountsError
from accounts.migrate import BASE, COMMAND, downgrade, require_current, upgrade, version_of
from accounts.schema import METADATA
from tests.accounts.processes import at_once

FIRST = "0001"

ROWS: dict[str, list[dict[str, Any]]] = {
    "organisations": [{"id": "org_1", "name": "Ünï", "created_at": 1, "closed_at": None}],
    "accounts": [
        {"id": "acct_1", "organisation_id": "org_1", "name": "a", "prepaid": True, "created_at": 1, "closed_at": None}
    ],
    "keys": [
        {
            "id": "key_1", "account_id": "acct_1", "name": "k", "digest": b"\x00" * 32, "hint": "gr-abcd",
            "retired_digest": None, "retired_at": None, "scopes": ["inference"], "models": None, "tasks": ["ocr"],
            "origins": None, "limits": {"*": {"requests": 1}}, "budgets": {"day": 2**40}, "created_at": 1,
            "expires_at": None, "revoked_at": None, "last_used_at": 2**41,
        }
    ],
    "price_lists": [{"digest": "p", "content": {"models": {}}, "first_used_at": 1}],
    "entries": [
        {
            "id": number, "uid": f"hold_{number}", "account_id": "acct_1", "key_id": "key_1", "kind": "charge",
            "amount": -(2**50), "at": number, "day": "2026-11-27", "request_id": None,
            "outcome": "completed", "model": "m", "tasks": "ocr", "images": 1, "cached_images": 0,
            "prompt_tokens": 3, "completion_tokens": 4, "batch": False, "price_list": "p", "note": None,
        }
        for number in range(1, 1001)
    ],
    "balances": [{"account_id": "acct_1", "settled": -(2**60), "held": 5}],
    "spending": [{"key_id": "key_1", "period": "2026-11", "settled": 1, "held": 5}],
    "holds": [
        {"id": "h", "account_id": "acct_1", "key_id": "key_1", "amount": 5, "day": "2026-11-27", "expires_at": 9}
    ],
    "usage_days": [
        {
            "account_id": "acct_1", "day": "2026-11-27", "key_id": "key_1", "model": "m", "requests": 1, "failed": 0,
            "images": 1, "cached_images": 0, "prompt_tokens": 3, "completion_tokens": 4, "amount": 2**50,
        }
    ],
    "answers": [
        {
            "key_id": "key_1", "idempotency_key": "i", "request_digest": b"\x01" * 32, "state": "answered",
            "owner": "o", "status": 200, "headers": [["a", "b"]], "body": b"\x00\xff", "settlements": None,
            "created_at": 1, "expires_at": 2,
        }
    ],
    "audit": [{"id": 1, "at": 1, "actor": "a", "action": "key.create", "subject": "key_1", "details": {"x": None}}],
}  # fmt: skip
"""Some of everything."""


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    opened = open_database(empty_database_url)
    yield opened
    opened.close()


def fill(database: Database) -> None:
    with database.begin() as connection:
        for name, rows in ROWS.items():
            connection.execute(insert(METADATA.tables[name]), rows)


def content(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.read() as connection:
        return {
            name: [dict(row) for row in connection.execute(select(METADATA.tables[name])).mappings()] for name in ROWS
        }


def tables(database: Database) -> set[str]:
    with database.read() as connection:
        return set(inspect(connection).get_table_names())


def test_they_make_the_tables_that_the_code_knows(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []


def test_they_name_what_later_ones_must_find_again(database: Database) -> None:
    """Keys and references, which :func:`compare_metadata` takes for the same under every name."""
    found = MetaData()
    with database.read() as connection:
        found.reflect(connection)
    for table in METADATA.tables.values():
        made = {constraint.name for constraint in found.tables[table.name].constraints}
        assert made == {str(constraint.name) for constraint in table.constraints}


def test_what_is_there_stays_as_it_is(database: Database) -> None:
    assert set(ROWS) | {"settings"} == set(METADATA.tables)
    fill(database)
    upgrade(database)
    assert content(database) == ROWS


def test_up_and_down_and_up_again_on_a_filled_database(database: Database) -> None:
    fill(database)
    downgrade(database, BASE)
    assert tables(database) == {"alembic_version"}
    assert version_of(database) is None
    upgrade(database)
    require_current(database)
    assert tables(database) == {"alembic_version", *METADATA.tables}
    assert not any(content(database).values())
    fill(database)


def test_each_database_has_a_secret_of_its_own(empty: Database) -> None:
    found = []
    for _ in range(2):
        upgrade(empty)
        with empty.read() as connection:
            found.append(connection.execute(text("SELECT value FROM settings WHERE name = 'pepper'")).scalar_one())
        downgrade(empty, BASE)
    assert [len(secret) for secret in found] == [64, 64]
    assert found[0] != found[1]


def test_a_step_that_fails_leaves_nothing_behind(empty: Database) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE audit (x integer)"))  # the last table of the first version
    with pytest.raises(Exception, match="audit"):
        upgrade(empty)
    assert tables(empty) == {"audit"}


def test_a_database_without_tables_is_refused(empty: Database) -> None:
    with pytest.raises(AccountsError, match=COMMAND):
        require_current(empty)
    upgrade(empty)
    require_current(empty)


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for refused in (require_current, upgrade):
        with pytest.raises(AccountsError, match="has version 9999, which only a newer gigarouter knows"):
            refused(database)


def test_a_version_that_is_none_is_refused(database: Database) -> None:
    with pytest.raises(AccountsError, match="version 7777"):
        downgrade(database, "7777")
    require_current(database)


def test_processes_that_migrate_at_once_wait_for_each_other(empty_database_url: str) -> None:
    imports = "from accounts.database import open_database\nfrom accounts.migrate import upgrade, version_of"
    lines = "database = open_database(sys.argv[1])\nupgrade(database)\nprint(version_of(database))"
    assert at_once(2, imports, lines, empty_database_url) == [f"{FIRST}\n"] * 2
