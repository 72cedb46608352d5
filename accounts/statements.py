"""The ledger's SQL, once for each dialect.

Nobody changes a sum, a hold or an entry of an account without the lock of its row in ``balances``; on SQLite, whoever
writes is alone anyway. So what is read after the lock is right until the end of the transaction.
"""

# ruff: noqa: S608  All that is put into these texts is from this file and accounts/driver.py.

from __future__ import annotations

from dataclasses import dataclass

from accounts.driver import POSTGRESQL, SQLITE, Wording

_SUMS = ("requests", "failed", "images", "cached_images", "prompt_tokens", "completion_tokens", "amount")
_HOLD = "id, account_id, key_id, amount, day"


@dataclass(frozen=True, slots=True)
class Statements:
    """Each with its parameters in order; "rows" and "ids" are lists (:func:`~accounts.driver.listed`).

    Attributes:
        lock: (ids of accounts). In the order of their ids, so that no two wait for each other. None on SQLite.
        owners: (ids of holds). The accounts of holds.
        expired: (time). The accounts that have holds which have expired.
        enter: (rows). Adds entries that are not there, and gives the ids of their holds. Before ``release``, for it
            takes the day from the hold.
        release: (ids of holds). Removes holds, and gives them.
        sweep: (time, ids of accounts). Removes holds which have expired, and gives them.
        read: (month, day, ids of keys). What decides about a hold: a row for each key and period that it has spent in.
        write: (rows of holds, balances, spending, usage). One statement where the dialect allows it.
    """

    lock: str | None
    owners: str
    expired: str
    enter: str
    release: str
    sweep: str
    read: str
    write: tuple[str, ...]


def _statements(say: Wording) -> Statements:
    writes = (_take(say), _add_to_balances(say), _add_to_spending(say), _add_to_usage(say))
    return Statements(
        lock=None if say is SQLITE else _lock(say),
        owners=f"SELECT DISTINCT account_id FROM holds WHERE id IN {say.ids}",
        expired="SELECT DISTINCT account_id FROM holds WHERE expires_at <= ?",
        enter=_enter(say),
        release=f"DELETE FROM holds WHERE id IN {say.ids} RETURNING {_HOLD}",
        sweep=f"DELETE FROM holds WHERE expires_at <= ? AND account_id IN {say.ids} RETURNING {_HOLD}",
        read=_read(say),
        write=writes if say is SQLITE else (_together(writes),),
    )


def _lock(say: Wording) -> str:
    return f"SELECT 1 FROM balances WHERE account_id IN {say.ids} ORDER BY account_id FOR UPDATE"


def _enter(say: Wording) -> str:
    rows = say.rows(
        uid="text", account_id="text", key_id="text", amount="bigint", at="bigint", day="text", request_id="text",
        outcome="text", model="text", tasks="text", images="integer", cached_images="integer",
        prompt_tokens="integer", completion_tokens="integer", batch="boolean", price_list="text",
    )  # fmt: skip
    return f"""
        INSERT INTO entries (
            uid, account_id, key_id, kind, amount, at, day, request_id, outcome, model, tasks, images, cached_images,
            prompt_tokens, completion_tokens, batch, price_list
        )
        SELECT
            uid, account_id, key_id, 'charge', amount, at,
            COALESCE((SELECT holds.day FROM holds WHERE holds.id = r.uid), r.day),
            request_id, outcome, model, tasks, images, cached_images,
            prompt_tokens, completion_tokens, batch, price_list
        FROM {rows} WHERE true
        ON CONFLICT (uid) DO NOTHING RETURNING uid
    """


def _read(say: Wording) -> str:
    return f"""
        SELECT
            keys.id, keys.account_id, keys.revoked_at, keys.expires_at, accounts.closed_at, accounts.prepaid,
            balances.settled, balances.held, CAST(keys.budgets AS TEXT),
            spending.period, spending.settled + spending.held
        FROM keys
        JOIN accounts ON accounts.id = keys.account_id
        JOIN balances ON balances.account_id = keys.account_id
        LEFT JOIN spending
            ON spending.key_id = keys.id AND spending.period IN ('total', ?, ?)
        WHERE keys.id IN {say.ids}
    """


def _take(say: Wording) -> str:
    rows = say.rows(id="text", account_id="text", key_id="text", amount="bigint", day="text", expires_at="bigint")
    return f"INSERT INTO holds ({_HOLD}, expires_at) SELECT {_HOLD}, expires_at FROM {rows}"


def _add_to_balances(say: Wording) -> str:
    return _add(say, "balances", {"account_id": "text"}, ("settled", "held"))


def _add_to_spending(say: Wording) -> str:
    return _add(say, "spending", {"key_id": "text", "period": "text"}, ("settled", "held"))


def _add_to_usage(say: Wording) -> str:
    key = {"account_id": "text", "day": "text", "key_id": "text", "model": "text"}
    return _add(say, "usage_days", key, _SUMS)


def _add(say: Wording, table: str, key: dict[str, str], sums: tuple[str, ...]) -> str:
    """Adds to the sums of rows, which begin at nothing."""
    columns = ", ".join((*key, *sums))
    changes = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in sums)
    return f"""
        INSERT INTO {table} ({columns}) SELECT {columns} FROM {say.rows(**key, **dict.fromkeys(sums, "bigint"))}
        WHERE true ON CONFLICT ({", ".join(key)}) DO UPDATE SET {changes}
    """


def _together(writes: tuple[str, ...]) -> str:
    """All as one statement: they touch different tables."""
    named = ", ".join(f"w{number} AS ({write})" for number, write in enumerate(writes[:-1]))
    return f"WITH {named} {writes[-1]}"


STATEMENTS = {"sqlite": _statements(SQLITE), "postgresql": _statements(POSTGRESQL)}
