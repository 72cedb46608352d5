"""Adds everything up again: what is kept as a sum must be the sum of what it was made of.

    python -m accounts.check URL

``entries`` and ``holds`` are believed; ``balances``, ``spending`` and ``usage_days`` are held against them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text

from accounts.database import Database


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A table of sums, and what it must be.

    Attributes:
        table: Its name.
        key: Its columns that say of what.
        sums: Those that are compared.
        made_of: Rows of ``key`` and ``sums``, which are added up.
    """

    table: str
    key: tuple[str, ...]
    sums: tuple[str, ...]
    made_of: str


_BALANCES = _Comparison(
    "balances",
    ("account_id",),
    ("settled", "held"),
    """SELECT account_id, amount AS settled, 0 AS held FROM entries
    UNION ALL SELECT account_id, 0, amount FROM holds""",
)
_OF_KEYS = """SELECT key_id, day, -amount AS settled, 0 AS held FROM entries WHERE kind = 'charge'
    UNION ALL SELECT key_id, day, 0, amount FROM holds"""
_SPENDING = _Comparison(
    "spending",
    ("key_id", "period"),
    ("settled", "held"),
    " UNION ALL ".join(
        f"SELECT key_id, {period} AS period, settled, held FROM ({_OF_KEYS}) AS s{number}"  # noqa: S608  our own words
        for number, period in enumerate(("'total'", "substr(day, 1, 7)", "day"))
    ),
)
_USAGE = _Comparison(
    "usage_days",
    ("account_id", "day", "key_id", "model"),
    ("requests", "images", "cached_images", "prompt_tokens", "completion_tokens", "amount"),
    """SELECT account_id, day, key_id, model, 1 AS requests, images, cached_images, prompt_tokens, completion_tokens,
    -amount AS amount FROM entries WHERE kind = 'charge'""",
)


def differences(database: Database) -> list[str]:
    """What does not add up, in words; empty where everything does. What goes on meanwhile changes nothing about it.

    Raises:
        AccountsUnavailable: The database does not answer.
    """
    with database.read(unhurried=True) as connection:
        return [words for each in (_BALANCES, _SPENDING, _USAGE) for words in _differing(connection, each)]


def _differing(connection: Connection, comparison: _Comparison) -> Iterator[str]:
    """Both sides go into one table, what it must be with a minus, so that what is left over differs."""
    count = len(comparison.key)
    for row in connection.execute(text(_query(comparison))):
        of = ", ".join(str(value) for value in row[:count])
        pairs = zip(comparison.sums, row[count::2], row[count + 1 :: 2], strict=True)
        for name, kept, found in pairs:
            if kept != found:
                yield f"{comparison.table} of {of}: {name} is {kept}, and must be {found}"


def _query(comparison: _Comparison) -> str:
    key, sums = ", ".join(comparison.key), comparison.sums
    kept = ", ".join(f"{name} AS k{number}, 0 AS f{number}" for number, name in enumerate(sums))
    found = ", ".join(f"0 AS k{number}, {name} AS f{number}" for number, name in enumerate(sums))
    both = ", ".join(
        f"CAST(SUM(k{number}) AS BIGINT) AS k{number}, CAST(SUM(f{number}) AS BIGINT) AS f{number}"
        for number, _ in enumerate(sums)
    )
    differs = " OR ".join(f"SUM(k{number}) <> SUM(f{number})" for number, _ in enumerate(sums))
    return f"""
        SELECT {key}, {both} FROM (
            SELECT {key}, {kept} FROM {comparison.table}
            UNION ALL SELECT {key}, {found} FROM ({comparison.made_of}) AS m
        ) AS b GROUP BY {key} HAVING {differs} ORDER BY {key}
    """  # noqa: S608  all of it is our own words
