"""Answers to requests that carry an idempotency key: kept for a while, so that asking again does nothing again.

A row begins as a claim: one request works on the answer, and says so again and again until its lease ends. It becomes
the answer, or is removed when there was none. What has expired counts for nothing: a claim whose owner died is taken
over, and an answer is forgotten. Knows no HTTP beside a status and headers, which it only keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, select, tuple_, update

from accounts.database import Database
from accounts.errors import KeyReused
from accounts.schema import answers
from accounts.settlements import settlement_json, settlement_of
from accounts.types import Settlement

RUNNING, ANSWERED = "running", "answered"
REMOVED_AT_ONCE = 500
"""Rows in one transaction, so that others need not wait for long."""

State = Literal["free", "ours", "running", "answered"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that carries an idempotency key.

    Attributes:
        key: The id of the key that asks. Others cannot see its answers.
        idempotency_key: Chosen by the client.
        digest: 32 bytes, the same for the same request.
        owner: Of this one request and no other, however alike.
    """

    key: str
    idempotency_key: str
    digest: bytes
    owner: str


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer as it was sent.

    Attributes:
        status: HTTP's.
        headers: Names and values.
        body: All of it.
        settlements: What is owed for it.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    settlements: tuple[Settlement, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What there is for a request.

    Attributes:
        state: ``ours``: the request is to be done, and nobody else does it; ``running``: another one is at it;
            ``answered``: ``answer`` is the answer; ``free``: nothing.
        answer: The answer, where there is one.
    """

    state: State
    answer: StoredAnswer | None = None


class Answers:
    """The answers of all keys. Times are milliseconds since 1970; each call is one transaction or two."""

    def __init__(self, database: Database, *, lease_ms: int, kept_ms: int) -> None:
        """Keep answers for ``kept_ms``, and claims for ``lease_ms`` after they were last renewed."""
        self._database = database
        self._lease_ms = lease_ms
        self._kept_ms = kept_ms

    def claim(self, asked: Asked, now: int) -> Found:
        """What there is for a request; where there is nothing, it becomes the one that works on it.

        Raises:
            KeyReused: The idempotency key was used for another request.
            AccountsUnavailable: The database does not answer.
        """
        with self._database.read() as connection:
            found = _found(connection, asked, now)
        if found.state != "free":
            return found
        with self._database.begin() as connection:
            is_ours = self._insert(connection, asked, now)
            return Found("ours") if is_ours else _found(connection, asked, now)

    def renew(self, asked: Asked, now: int) -> None:
        """Go on working on it."""
        with self._database.begin() as connection:
            connection.execute(update(answers).where(_is_claim(asked)).values(expires_at=now + self._lease_ms))

    def store(self, asked: Asked, answer: StoredAnswer, now: int) -> bool:
        """Keep the answer; whether it was, which it is not where another one has taken over meanwhile."""
        values = {
            "state": ANSWERED,
            "status": answer.status,
            "headers": answer.headers,
            "body": answer.body,
            "settlements": [settlement_json(settlement) for settlement in answer.settlements],
            "expires_at": now + self._kept_ms,
        }
        with self._database.begin() as connection:
            return connection.execute(update(answers).where(_is_claim(asked)).values(values)).rowcount == 1

    def release(self, asked: Asked) -> None:
        """There is no answer that could be kept: whoever asks again has it done again."""
        with self._database.begin() as connection:
            connection.execute(delete(answers).where(_is_claim(asked)))

    def remove_expired(self, now: int) -> int:
        """Remove what counts for nothing; the number of rows."""
        removed = 0
        while (count := self._remove_some(now)) > 0:
            removed += count
        return removed

    def _remove_some(self, now: int) -> int:
        row = (answers.c.key_id, answers.c.idempotency_key)
        has_expired = answers.c.expires_at <= now
        some = select(*row).where(has_expired).limit(REMOVED_AT_ONCE)
        with self._database.begin() as connection:
            # Expired it must be in the end too: one may have been claimed anew in between.
            return connection.execute(delete(answers).where(tuple_(*row).in_(some), has_expired)).rowcount

    def _insert(self, connection: Connection, asked: Asked, now: int) -> bool:
        """Whether the claim is ours: there was none, or it had expired."""
        values = {
            "request_digest": asked.digest,
            "state": RUNNING,
            "owner": asked.owner,
            "status": None,
            "headers": None,
            "body": None,
            "settlements": None,
            "created_at": now,
            "expires_at": now + self._lease_ms,
        }
        row = {"key_id": asked.key, "idempotency_key": asked.idempotency_key, **values}
        inserting = self._database.upsert(answers).values(row)
        over = inserting.on_conflict_do_update(
            index_elements=[answers.c.key_id, answers.c.idempotency_key],
            set_=values,
            where=answers.c.expires_at <= now,
        )
        return connection.execute(over.returning(answers.c.owner)).one_or_none() is not None


def _found(connection: Connection, asked: Asked, now: int) -> Found:
    row = connection.execute(select(answers).where(_is_row(asked.key, asked.idempotency_key))).one_or_none()
    if row is None or row.expires_at <= now:
        return Found("free")
    if row.request_digest != asked.digest:
        raise KeyReused("This idempotency key was used for another request; use a new one for each request.")
    return Found("answered", _answer(row)) if row.state == ANSWERED else Found("running")


def _answer(row: Row[Any]) -> StoredAnswer:
    headers = tuple((name, value) for name, value in row.headers)
    return StoredAnswer(row.status, headers, bytes(row.body), tuple(map(settlement_of, row.settlements)))


def _is_row(key: str, idempotency_key: str) -> ColumnElement[bool]:
    return and_(answers.c.key_id == key, answers.c.idempotency_key == idempotency_key)


def _is_claim(asked: Asked) -> ColumnElement[bool]:
    row = _is_row(asked.key, asked.idempotency_key)
    return and_(row, answers.c.owner == asked.owner, answers.c.state == RUNNING)
