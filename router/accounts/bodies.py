"""The bodies of requests about accounts, and what they ask for.

Unlike elsewhere, a key that is not known is an error: a misspelt budget that is left aside would be no budget.
Times are whole seconds since 1970 and amounts decimal strings of US dollars, as everywhere outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from accounts.money import Nano, nano_of
from accounts.types import PERIODS, KeySpec, Limits, Period, Scope
from router.asgi.validation import Checked
from vlm.models.cards import canonical_name

MAX_NAME = 200
MAX_ITEMS = 100
MAX_COUNT = 10**9
LAST_SECOND = 253_402_300_799
"""The end of the year 9999: a time in milliseconds is beyond it, and would be taken for one that never comes."""
MAX_GRACE_S = 30 * 86_400

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._\[\]:-]+")


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must have no control characters, and no space around it")
    return text


def _origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        raise ValueError("must be the origin of a web page as browsers send it, as https://app.example.com")
    return text


def _dollars(text: str) -> str:
    if nano_of(text) < 0:
        raise ValueError("must not be negative")
    return text


def _some_dollars(text: str) -> str:
    if nano_of(text) == 0:
        raise ValueError("must not be 0")
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME), AfterValidator(_printable)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_printable)]
Names = Annotated[list[Name], Field(min_length=1, max_length=MAX_ITEMS)]
Origins = Annotated[list[Annotated[Name, AfterValidator(_origin)]], Field(min_length=1, max_length=MAX_ITEMS)]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=3)]
Count = Annotated[int, Field(gt=0, le=MAX_COUNT)]
Seconds = Annotated[int, Field(ge=0, le=LAST_SECOND)]
Dollars = Annotated[str, AfterValidator(_dollars)]
SomeDollars = Annotated[str, AfterValidator(_some_dollars)]


class Exact(Checked):
    """A body with no other keys than these."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class OrganisationBody(Exact):
    """A new organisation."""

    name: Name


class AccountBody(Exact):
    """A new account of an organisation, which is given by its id."""

    organisation: Id
    name: Name
    prepaid: bool = True


class LimitsBody(Exact):
    """How much a key may ask for in a minute, and at the same time."""

    requests: Count | None = None
    images: Count | None = None
    tokens: Count | None = None
    concurrent: Count | None = None


class BudgetsBody(Exact):
    """The most that a key may spend in a calendar day or month in UTC, or for ever, in US dollars."""

    day: Dollars | None = None
    month: Dollars | None = None
    total: Dollars | None = None


AllLimits = Annotated[dict[Name, LimitsBody], Field(max_length=MAX_ITEMS)]


class KeyChanges(Exact):
    """What is to become of a key; what is not named stays as it is, and null takes a restriction away."""

    name: Name = Field(default_factory=str)  # never read
    scopes: Scopes = Field(default=["inference"])
    models: Names | None = None
    tasks: Names | None = None
    origins: Origins | None = None
    limits: AllLimits = Field(default={})
    budgets: BudgetsBody = BudgetsBody()
    expires_at: Seconds | None = None

    def on(self, spec: KeySpec) -> KeySpec:
        """``spec`` with what is named here."""
        named = self.model_fields_set & _AS_SPEC.keys()
        changes: dict[str, Any] = {name: _AS_SPEC[name](getattr(self, name)) for name in named}
        return replace(spec, **changes)


class KeyBody(KeyChanges):
    """A new key of an account, which is given by its id."""

    account: Id
    name: Name

    @property
    def spec(self) -> KeySpec:
        """What it is to allow."""
        return self.on(KeySpec(self.name))


class RotationBody(Exact):
    """For how many seconds the secret before still holds."""

    grace_s: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = 0


class AccountChanges(Exact):
    """What is to become of an account; what is not named stays as it is."""

    name: Name | None = None
    prepaid: bool | None = None


class CreditBody(Exact):
    """Credits for an account, which is given by its id; a grant below 0 takes some back."""

    account: Id
    kind: Literal["grant", "refund"] = "grant"
    amount: SomeDollars
    note: Annotated[str, StringConstraints(max_length=400), AfterValidator(_printable)] = ""


def _frozen(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _models(names: list[str] | None) -> frozenset[str] | None:
    """By their own names, of whatever names: limits of another name would limit nothing."""
    return None if names is None else frozenset(map(canonical_name, names))


def _limits(given: Mapping[str, LimitsBody]) -> Mapping[str, Limits]:
    return {canonical_name(model): Limits(**limits.model_dump()) for model, limits in given.items()}


def _budgets(given: BudgetsBody) -> Mapping[Period, Nano]:
    amounts = {period: getattr(given, period) for period in PERIODS}
    return {period: nano_of(amount) for period, amount in amounts.items() if amount is not None}


def _ms(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000


_AS_SPEC: Mapping[str, Any] = {
    "name": str,
    "scopes": _frozen,
    "models": _models,
    "tasks": _frozen,
    "origins": _frozen,
    "limits": _limits,
    "budgets": _budgets,
    "expires_at": _ms,
}
"""How each field of a body becomes one of a :class:`~accounts.types.KeySpec`."""
