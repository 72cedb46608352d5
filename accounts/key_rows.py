"""Keys as rows: how they are made, found, changed and revoked, within a transaction. Knows hashes and no secret."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, insert, or_, select, update

from accounts import schema
from accounts.changes import Change
from accounts.errors import Conflict, NotFound
from accounts.ids import new_id
from accounts.organisations import account, checked_name, page_of
from accounts.types import SCOPES, Key, KeySpec, Limits
from vlm.errors import InvalidRequest

Json = dict[str, Any]

_KEYS = select(schema.keys, schema.accounts.c.prepaid, schema.accounts.c.closed_at).join(
    schema.accounts, schema.keys.c.account_id == schema.accounts.c.id
)
_BY_DIGEST = _KEYS.where(
    or_(schema.keys.c.digest == bindparam("wanted"), schema.keys.c.retired_digest == bindparam("wanted"))
)
_USED = (
    update(schema.keys)
    .where(
        schema.keys.c.id == bindparam("key"),
        or_(schema.keys.c.last_used_at.is_(None), schema.keys.c.last_used_at < bindparam("at")),
    )
    .values(last_used_at=bindparam("at"))
)


@dataclass(frozen=True, slots=True)
class Hashed:
    """What is kept of a secret: its keyed hash, which is not shown, and its first characters, which are."""

    digest: bytes
    hint: str

    def __repr__(self) -> str:
        return f"Hashed({self.hint!r})"


def key(connection: Connection, key_id: str) -> Key:
    """The key.

    Raises:
        NotFound: There is none of this id.
    """
    row = connection.execute(_KEYS.where(schema.keys.c.id == key_id)).first()
    if row is None:
        raise NotFound("There is no key of this id.", "key")
    return _key_of(row)


def keys(connection: Connection, account_id: str | None, after: str | None, limit: int) -> list[Key]:
    """A page of the keys of one account, or of all, see :func:`~accounts.organisations.page_of`."""
    query = _KEYS if account_id is None else _KEYS.where(schema.keys.c.account_id == account_id)
    return [_key_of(row) for row in page_of(connection, query, schema.keys, after, limit)]


def find(connection: Connection, digest: bytes) -> Key | None:
    """The key whose secret has this keyed hash; one that is good for nothing, too.

    A secret that was replaced is good until its time is over, which is then when the key expires.
    """
    row = connection.execute(_BY_DIGEST, {"wanted": digest}).first()
    if row is None:
        return None
    found = _key_of(row)
    if hmac.compare_digest(row.digest, digest):
        return found
    if row.retired_digest is not None and hmac.compare_digest(row.retired_digest, digest):
        return replace(found, spec=replace(found.spec, expires_at=_first(found.spec.expires_at, row.retired_at)))
    return None


def create_key(change: Change, account_id: str, spec: KeySpec, hashed: Hashed) -> Key:
    """Make a key.

    Raises:
        InvalidRequest: The name or the scopes are none.
        NotFound: There is no account of this id.
        Conflict: It is closed.
    """
    if account(change.connection, account_id).closed_at is not None:
        raise Conflict("The account is closed.", "account")
    columns = columns_of(_checked(spec))
    key_id = new_id("key")
    of_it = {"id": key_id, "account_id": account_id, "created_at": change.at}
    secret = {"digest": hashed.digest, "hint": hashed.hint}
    change.connection.execute(insert(schema.keys), {**of_it, **secret, **columns})
    change.record("key.create", key_id, {"account": account_id, "hint": hashed.hint, **columns})
    return key(change.connection, key_id)


def update_key(change: Change, key_id: str, changed: Callable[[KeySpec], KeySpec]) -> Key:
    """Let a key allow something else.

    Args:
        change: What this is part of.
        key_id: Of the key.
        changed: Makes what it is to allow, of what it allows now.

    Raises:
        InvalidRequest: The name or the scopes are none.
        NotFound: There is no key of this id.
        Conflict: It was revoked.
    """
    before = _good(change, key_id).spec
    old, new = columns_of(before), columns_of(_checked(changed(before)))
    wanted = {name: value for name, value in new.items() if value != old[name]}
    if wanted:
        _set(change, key_id, wanted)
        change.record("key.update", key_id, wanted)
    return key(change.connection, key_id)


def rotate_key(change: Change, key_id: str, hashed: Hashed, grace_s: int) -> Key:
    """Give a key another secret; the one that it had is good for ``grace_s`` more seconds.

    Raises:
        NotFound: There is no key of this id.
        Conflict: It was revoked.
    """
    _good(change, key_id)
    if grace_s > 0:
        retired = {"retired_digest": schema.keys.c.digest, "retired_at": change.at + grace_s * 1000}
    else:
        retired = {"retired_digest": None, "retired_at": None}
    _set(change, key_id, {**retired, "digest": hashed.digest, "hint": hashed.hint})
    change.record("key.rotate", key_id, {"grace_s": grace_s, "hint": hashed.hint})
    return key(change.connection, key_id)


def revoke_key(change: Change, key_id: str) -> Key:
    """Make a key good for nothing, with all its secrets; nothing happens to one that was revoked.

    Raises:
        NotFound: There is no key of this id.
    """
    found = key(change.connection, key_id)
    if found.revoked_at is not None:
        return found
    _set(change, key_id, {"revoked_at": change.at})
    change.record("key.revoke", key_id)
    return key(change.connection, key_id)


def used(connection: Connection, key_ids: Iterable[str], at: int) -> None:
    """Write down that keys were used. In the same order everywhere, or else two processes wait for each other."""
    if rows := [{"key": key_id, "at": at} for key_id in sorted(set(key_ids))]:
        connection.execute(_USED, rows)


def columns_of(spec: KeySpec) -> Json:
    """What a key allows as it is kept in its row, and shown in the audit log."""
    return {
        "name": spec.name,
        "scopes": sorted(spec.scopes),
        "models": _sorted(spec.models),
        "tasks": _sorted(spec.tasks),
        "origins": _sorted(spec.origins),
        "limits": {model: _limits_json(limits) for model, limits in sorted(spec.limits.items())},
        "budgets": dict(sorted(spec.budgets.items())),
        "expires_at": spec.expires_at,
    }


def _key_of(row: Any) -> Key:
    spec = KeySpec(
        name=row.name,
        scopes=frozenset(row.scopes),
        models=_set_of(row.models),
        tasks=_set_of(row.tasks),
        origins=_set_of(row.origins),
        limits={model: Limits(**limits) for model, limits in row.limits.items()},
        budgets=row.budgets,
        expires_at=row.expires_at,
    )
    revoked = _first(row.revoked_at, row.closed_at)
    return Key(row.id, row.account_id, spec, row.hint, row.prepaid, row.created_at, revoked, row.last_used_at)


def _good(change: Change, key_id: str) -> Key:
    found = key(change.connection, key_id)
    if found.revoked_at is not None:
        raise Conflict("The key was revoked, or its account is closed.", "key")
    return found


def _checked(spec: KeySpec) -> KeySpec:
    checked_name(spec.name)
    if not spec.scopes or not spec.scopes <= set(SCOPES):
        raise InvalidRequest(f"A key has at least one of the scopes {', '.join(SCOPES)}, and no other.", "scopes")
    return spec


def _set(change: Change, key_id: str, values: Mapping[str, Any]) -> None:
    change.connection.execute(update(schema.keys).where(schema.keys.c.id == key_id).values(values))


def _limits_json(limits: Limits) -> Json:
    return {name: limit for name, limit in asdict(limits).items() if limit is not None}


def _sorted(names: Collection[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _set_of(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _first(one: int | None, other: int | None) -> int | None:
    return min((time for time in (one, other) if time is not None), default=None)
