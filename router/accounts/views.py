"""How organisations, accounts, keys and their money look from outside: seconds, and US dollars as decimal strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from accounts.keys import NewKey
from accounts.money import dollars_of
from accounts.types import PERIODS, Account, Key, Limits, Organisation

if TYPE_CHECKING:
    from accounts.audit import AuditEntry

Json = dict[str, Any]


def organisation_json(found: Organisation) -> Json:
    """An organisation."""
    return {
        "id": found.id,
        "object": "organisation",
        "name": found.name,
        "created_at": _seconds(found.created_at),
        "closed_at": _seconds(found.closed_at),
    }


def account_json(found: Account) -> Json:
    """An account, without its money."""
    return {
        "id": found.id,
        "object": "account",
        "organisation": found.organisation,
        "name": found.name,
        "prepaid": found.prepaid,
        "created_at": _seconds(found.created_at),
        "closed_at": _seconds(found.closed_at),
    }


def key_json(key: Key, limits: Mapping[str, Limits] | None = None) -> Json:
    """A key, with ``limits`` in place of its own."""
    spec = key.spec
    return {
        "id": key.id,
        "object": "key",
        "account": key.account,
        "name": spec.name,
        "hint": key.hint,
        "scopes": sorted(spec.scopes),
        "models": _listed(spec.models),
        "tasks": _listed(spec.tasks),
        "origins": _listed(spec.origins),
        "limits": {model: asdict(one) for model, one in sorted((spec.limits if limits is None else limits).items())},
        "budgets": {period: dollars_of(spec.budgets[period]) for period in PERIODS if period in spec.budgets},
        "created_at": _seconds(key.created_at),
        "expires_at": _seconds(spec.expires_at),
        "revoked_at": _seconds(key.revoked_at),
        "last_used_at": _seconds(key.last_used_at),
    }


def new_key_json(new: NewKey) -> Json:
    """A key together with its secret, which is told once."""
    return {**key_json(new.key), "secret": new.secret}


def audit_json(entry: AuditEntry) -> Json:
    """A change that was made."""
    return {
        "id": str(entry.id),
        "object": "audit.entry",
        "created_at": _seconds(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "details": {name: _detail(name, value) for name, value in entry.details.items()},
    }


def _detail(name: str, value: Any) -> Any:
    """Details are kept as keys are: amounts in nano-dollars, times in milliseconds."""
    if name == "budgets" and isinstance(value, dict):
        return {period: dollars_of(amount) for period, amount in value.items()}
    return _seconds(value) if name == "expires_at" else value


def _listed(names: Iterable[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _seconds(at: int | None) -> int | None:
    return None if at is None else at // 1000
