"""Credits of accounts: what there are, and how an operator gives some. What requests cost, the ledger takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, insert, select, update

from accounts import audit, ids, schema
from accounts.errors import NotFound
from accounts.money import Nano, dollars_of
from vlm.errors import InvalidRequest

MAX_BALANCE: Nano = 2**62
"""Of an account, above and below zero: half of what a column holds, which nobody's requests come near."""

MAX_NOTE_CHARS = 400


@dataclass(frozen=True, slots=True)
class Balance:
    """Of an account.

    Attributes:
        settled: The sum of its entries: what was given minus what was charged.
        held: What is kept for requests that are under way.
        prepaid: Whether requests are refused that what is left does not cover.
    """

    settled: Nano
    held: Nano
    prepaid: bool

    @property
    def left(self) -> Nano:
        """What further requests can use."""
        return self.settled - self.held


def balance(connection: Connection, account: str) -> Balance:
    """What an account has.

    Raises:
        NotFound: There is no such account.
    """
    sums, table = schema.balances.c, schema.accounts.c
    query = select(sums.settled, sums.held, table.prepaid).join_from(schema.balances, schema.accounts)
    row = connection.execute(query.where(table.id == account)).one_or_none()
    if row is None:
        raise NotFound("There is no account of this id.", "account")
    return Balance(*row)


def grant(connection: Connection, account: str, amount: Nano, *, note: str, actor: str, now: int) -> str:
    """Give credits to an account, or take some back where ``amount`` is below zero.

    Args:
        connection: In a transaction that writes, and has locked no account.
        account: Its id.
        amount: Not zero.
        note: For people; at most :data:`MAX_NOTE_CHARS` characters.
        actor: Who does it, for the audit log.
        now: The time.

    Returns:
        The entry's uid.

    Raises:
        NotFound: There is no such account.
        InvalidRequest: The amount or the note is not allowed.
    """
    if amount == 0:
        raise InvalidRequest("The amount must not be zero.", "amount")
    return _credit(connection, "grant", account, amount, note=note, actor=actor, now=now)


def refund(connection: Connection, account: str, amount: Nano, *, note: str, actor: str, now: int) -> str:
    """Give back what requests have cost; ``amount`` is above zero. Otherwise as :func:`grant`."""
    if amount <= 0:
        raise InvalidRequest("The amount must be above zero.", "amount")
    return _credit(connection, "refund", account, amount, note=note, actor=actor, now=now)


def _credit(
    connection: Connection,
    kind: Literal["grant", "refund"],
    account: str,
    amount: Nano,
    *,
    note: str,
    actor: str,
    now: int,
) -> str:
    if len(note) > MAX_NOTE_CHARS or "\0" in note:
        raise InvalidRequest(f"The note must have at most {MAX_NOTE_CHARS} characters, and none may be NUL.", "note")
    _add(connection, account, amount)
    uid = ids.random_name()
    row = {"uid": uid, "account_id": account, "kind": kind, "amount": amount, "at": now, "note": note}
    connection.execute(insert(schema.entries), row)
    details = {"uid": uid, "amount": dollars_of(amount), "note": note}
    audit.record(connection, now, actor, action=f"credits.{kind}", subject=account, details=details)
    return uid


def _add(connection: Connection, account: str, amount: Nano) -> None:
    """To the balance, whose row stays locked."""
    mine = schema.balances.c.account_id == account
    settled = connection.execute(select(schema.balances.c.settled).where(mine).with_for_update()).scalar_one_or_none()
    if settled is None:
        raise NotFound("There is no account of this id.", "account")
    if abs(settled + amount) > MAX_BALANCE:
        raise InvalidRequest("The account would have more than can be counted.", "amount")
    connection.execute(update(schema.balances).where(mine).values(settled=settled + amount))
