"""Organisations and their accounts: how they are made, found and closed, within a transaction. Knows no key."""

from __future__ import annotations

import unicodedata
from typing import Any

from sqlalchemy import Column, Connection, Select, Table, insert, select, tuple_, update

from accounts import schema
from accounts.changes import Change
from accounts.errors import Conflict, NotFound
from accounts.ids import new_id, random_name
from accounts.money import Nano, dollars_of
from accounts.types import Account, Organisation
from vlm.errors import InvalidRequest

MAX_NAME_CHARS = 200

_ORGANISATIONS = select(
    schema.organisations.c.id,
    schema.organisations.c.name,
    schema.organisations.c.created_at,
    schema.organisations.c.closed_at,
)
_ACCOUNTS = select(
    schema.accounts.c.id,
    schema.accounts.c.organisation_id,
    schema.accounts.c.name,
    schema.accounts.c.prepaid,
    schema.accounts.c.created_at,
    schema.accounts.c.closed_at,
)


def checked_name(name: str) -> str:
    """The name, if it can be shown to people.

    Raises:
        InvalidRequest: It cannot.
    """
    shown = name.strip() == name and all(unicodedata.category(char)[0] != "C" for char in name)
    if not shown or not 0 < len(name) <= MAX_NAME_CHARS:
        raise InvalidRequest(
            f"A name has 1 to {MAX_NAME_CHARS} characters, none of them a control character, and no space around it.",
            "name",
        )
    return name


def page_of(connection: Connection, query: Select[Any], table: Table, after: str | None, limit: int) -> list[Any]:
    """Rows in the order in which they were made, which follow the one with the id ``after``.

    Raises:
        NotFound: There is no such row.
    """
    order = (table.c.created_at, table.c.id)
    if after is not None:
        last = connection.execute(select(*order).where(table.c.id == after)).first()
        if last is None:
            raise NotFound("There is no row of this id to go on after.", "after")
        query = query.where(tuple_(*order) > tuple_(*last))
    return list(connection.execute(query.order_by(*order).limit(limit)))


def organisation(connection: Connection, organisation_id: str) -> Organisation:
    """The organisation.

    Raises:
        NotFound: There is none of this id.
    """
    row = connection.execute(_ORGANISATIONS.where(schema.organisations.c.id == organisation_id)).first()
    if row is None:
        raise NotFound("There is no organisation of this id.", "organisation")
    return Organisation(*row)


def organisation_named(connection: Connection, name: str) -> Organisation | None:
    """The organisation of this name, if there is one."""
    row = connection.execute(_ORGANISATIONS.where(schema.organisations.c.name == name)).first()
    return None if row is None else Organisation(*row)


def organisations(connection: Connection, after: str | None, limit: int) -> list[Organisation]:
    """A page of all organisations, see :func:`page_of`."""
    return [Organisation(*row) for row in page_of(connection, _ORGANISATIONS, schema.organisations, after, limit)]


def create_organisation(change: Change, name: str) -> Organisation:
    """Make an organisation.

    Raises:
        InvalidRequest: The name is none.
        Conflict: There is one of this name.
    """
    made = Organisation(new_id("org"), checked_name(name), change.at)
    if organisation_named(change.connection, name) is not None:
        raise Conflict("There is an organisation of this name.", "name")
    row = {"id": made.id, "name": name, "created_at": made.created_at}
    change.connection.execute(insert(schema.organisations), row)
    change.record("organisation.create", made.id, {"name": name})
    return made


def close_organisation(change: Change, organisation_id: str) -> Organisation:
    """Close an organisation with all its accounts; nothing happens to one that is closed.

    Raises:
        NotFound: There is none of this id.
    """
    found = organisation(change.connection, organisation_id)
    if found.closed_at is None:
        _close(change, schema.organisations, schema.organisations.c.id, organisation_id)
        change.record("organisation.close", organisation_id)
        open_accounts = _ACCOUNTS.where(
            schema.accounts.c.organisation_id == organisation_id, schema.accounts.c.closed_at.is_(None)
        )
        for row in change.connection.execute(open_accounts).all():
            close_account(change, row.id)
    return organisation(change.connection, organisation_id)


def account(connection: Connection, account_id: str) -> Account:
    """The account.

    Raises:
        NotFound: There is none of this id.
    """
    row = connection.execute(_ACCOUNTS.where(schema.accounts.c.id == account_id)).first()
    if row is None:
        raise NotFound("There is no account of this id.", "account")
    return Account(*row)


def account_named(connection: Connection, organisation_id: str, name: str) -> Account | None:
    """The organisation's account of this name, if there is one."""
    of_it = schema.accounts.c.organisation_id == organisation_id
    row = connection.execute(_ACCOUNTS.where(of_it, schema.accounts.c.name == name)).first()
    return None if row is None else Account(*row)


def accounts(connection: Connection, organisation_id: str | None, after: str | None, limit: int) -> list[Account]:
    """A page of the accounts of one organisation, or of all, see :func:`page_of`."""
    query = _ACCOUNTS
    if organisation_id is not None:
        query = query.where(schema.accounts.c.organisation_id == organisation_id)
    return [Account(*row) for row in page_of(connection, query, schema.accounts, after, limit)]


def create_account(change: Change, organisation_id: str, name: str, *, prepaid: bool, credit: Nano) -> Account:
    """Make an account.

    Args:
        change: What this is part of.
        organisation_id: Whose account.
        name: Unlike the organisation's others, those that are closed too.
        prepaid: See :class:`~accounts.types.Account`.
        credit: What it begins with, 0 or more.

    Raises:
        InvalidRequest: The name is none.
        NotFound: There is no such organisation.
        Conflict: It is closed, or has an account of this name.
    """
    made = Account(new_id("acct"), organisation_id, checked_name(name), prepaid, change.at)
    if organisation(change.connection, organisation_id).closed_at is not None:
        raise Conflict("The organisation is closed.", "organisation")
    _require_unused(change, organisation_id, name)
    row = {"id": made.id, "organisation_id": organisation_id, "name": name, "prepaid": prepaid, "created_at": change.at}
    change.connection.execute(insert(schema.accounts), row)
    _begin_ledger(change, made.id, credit)
    details = {"organisation": organisation_id, "name": name, "prepaid": prepaid, "credit": dollars_of(credit)}
    change.record("account.create", made.id, details)
    return made


def update_account(change: Change, account_id: str, *, name: str | None, prepaid: bool | None) -> Account:
    """Change what is not None.

    Raises:
        InvalidRequest: The name is none.
        NotFound: There is no account of this id.
        Conflict: The organisation has another account of this name, or the account is closed.
    """
    found = account(change.connection, account_id)
    if found.closed_at is not None:
        raise Conflict("The account is closed.", "account")
    wanted: dict[str, str | bool] = {}
    if name is not None and name != found.name:
        _require_unused(change, found.organisation, checked_name(name))
        wanted["name"] = name
    if prepaid is not None and prepaid != found.prepaid:
        wanted["prepaid"] = prepaid
    if wanted:
        change.connection.execute(update(schema.accounts).where(schema.accounts.c.id == account_id).values(wanted))
        change.record("account.update", account_id, wanted)
    return account(change.connection, account_id)


def close_account(change: Change, account_id: str) -> Account:
    """Close an account, and so make its keys good for nothing; nothing happens to one that is closed.

    Raises:
        NotFound: There is none of this id.
    """
    if account(change.connection, account_id).closed_at is None:
        _close(change, schema.accounts, schema.accounts.c.id, account_id)
        change.record("account.close", account_id)
    return account(change.connection, account_id)


def _require_unused(change: Change, organisation_id: str, name: str) -> None:
    if account_named(change.connection, organisation_id, name) is not None:
        raise Conflict("The organisation has an account of this name.", "name")


def _close(change: Change, table: Table, column: Column[str], found_id: str) -> None:
    change.connection.execute(update(table).where(column == found_id).values(closed_at=change.at))


def _begin_ledger(change: Change, account_id: str, credit: Nano) -> None:
    balance = {"account_id": account_id, "settled": credit, "held": 0}
    change.connection.execute(insert(schema.balances), balance)
    if credit:
        entry = {"uid": random_name(), "account_id": account_id, "kind": "sign_up", "amount": credit, "at": change.at}
        change.connection.execute(insert(schema.entries), entry)
