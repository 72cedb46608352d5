"""The audit log: who changed what, written in the transaction of the change: neither is there without the other.

Nothing in it is secret. Knows no organisation, account or key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from accounts import schema

MAX_ACTOR_CHARS = 80


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change.

    Attributes:
        id: Counts up.
        at: When, in milliseconds since 1970.
        actor: Who: a key's id, or ``command:`` and the name of who ran it.
        action: What, as ``key.revoke``.
        subject: The id of what was changed.
        details: What it was changed to.
    """

    id: int
    at: int
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]


def record(
    connection: Connection,
    at: int,
    actor: str,
    *,
    action: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down one change, in the transaction that makes it; the arguments are those of :class:`AuditEntry`."""
    row = {"at": at, "actor": actor[:MAX_ACTOR_CHARS], "action": action, "subject": subject, "details": details or {}}
    connection.execute(insert(schema.audit), row)


def entries_of(connection: Connection, subject: str | None, before: int | None, limit: int) -> list[AuditEntry]:
    """A page of the log, the newest first.

    Args:
        connection: In a transaction.
        subject: Only what was done to this id; None for everything.
        before: Only entries with a smaller id; None from the newest on.
        limit: Most entries of the page.
    """
    table = schema.audit.c
    query = select(table.id, table.at, table.actor, table.action, table.subject, table.details)
    if subject is not None:
        query = query.where(table.subject == subject)
    if before is not None:
        query = query.where(table.id < before)
    return [AuditEntry(*row) for row in connection.execute(query.order_by(table.id.desc()).limit(limit))]
