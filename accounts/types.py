"""What accounts are made of. Plain data; times are whole milliseconds since 1970 unless they say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from accounts.money import Nano

Scope = Literal["inference", "admin", "monitor"]
"""What a key is for: asking models and reading its own account; managing all accounts; reading status and metrics."""
SCOPES: tuple[Scope, ...] = ("inference", "admin", "monitor")

Period = Literal["day", "month", "total"]
"""What a budget is for: a calendar day or month in UTC, or for ever."""
PERIODS: tuple[Period, ...] = ("day", "month", "total")

EVERY_MODEL = "*"
"""Among the limits of a key, those of all models together; a model's own hold beside them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a key may ask for; None where there is no limit.

    Attributes:
        requests, images, tokens: In a minute. Tokens are those read and written.
        concurrent: Requests at the same time.
    """

    requests: int | None = None
    images: int | None = None
    tokens: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class Organisation:
    """To whom accounts belong. One that is closed gets no further accounts, and those that it had are closed."""

    id: str
    name: str
    created_at: int
    closed_at: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays.

    Attributes:
        id: ``acct_`` and random characters.
        organisation: Its id.
        name: For people.
        prepaid: Whether requests are refused that its credits do not cover. Else its balance may go below zero.
        created_at: When it was made.
        closed_at: When it was closed; its keys have been good for nothing since.
    """

    id: str
    organisation: str
    name: str
    prepaid: bool
    created_at: int
    closed_at: int | None = None


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What a key is to allow; None means no restriction.

    Attributes:
        name: For people.
        scopes: What it is for.
        models: Canonical names of the models that it may ask and see.
        tasks: Canonical names of the tasks that it may ask for.
        origins: Web pages that may use it, as ``https://app.example.com``. Programs send no origin and need none.
        limits: By model, and for all together under :data:`EVERY_MODEL`.
        budgets: The most that it may spend in a period.
        expires_at: From when it is good for nothing.
    """

    name: str
    scopes: frozenset[Scope] = frozenset({"inference"})
    models: frozenset[str] | None = None
    tasks: frozenset[str] | None = None
    origins: frozenset[str] | None = None
    limits: Mapping[str, Limits] = field(default_factory=dict)
    budgets: Mapping[Period, Nano] = field(default_factory=dict)
    expires_at: int | None = None

    def allows_model(self, model: str) -> bool:
        """Whether the key may ask a model and see it."""
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is known; the secret itself is known only to whom it was given.

    Attributes:
        id: ``key_`` and random characters. It stays when the secret is replaced, so files and usage stay with it.
        account: The id of its account.
        spec: What it allows.
        hint: The first characters of its secret, by which people tell keys apart.
        prepaid: That of its account.
        created_at, revoked_at, last_used_at: Times; ``last_used_at`` is exact to a minute.
    """

    id: str
    account: str
    spec: KeySpec
    hint: str
    prepaid: bool
    created_at: int
    revoked_at: int | None = None
    last_used_at: int | None = None

    def is_good(self, now: int) -> bool:
        """Whether it was not revoked and has not expired."""
        return self.revoked_at is None and (self.spec.expires_at is None or now < self.spec.expires_at)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one model did for one request, by which it is paid.

    Attributes:
        model: Canonical name.
        tasks: Canonical names, one for each task that was done on each image.
        images: Number of images; 0 for a request without one.
        cached_images: Those of them that had been encoded before.
        prompt_tokens, completion_tokens: Tokens read and written.
        batch: Whether others went first.
    """

    model: str
    tasks: tuple[str, ...] = ()
    images: int = 0
    cached_images: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    batch: bool = False


@dataclass(frozen=True, slots=True)
class HoldAsk:
    """Money that is to be kept for a request until it is known what it costs.

    Attributes:
        id: Random; the charge that follows has the same, so that it is counted once however often it is written.
        account, key: Whose.
        amount: The most that the request can cost.
        expires_at: When the hold is void. Later than the request's deadline.
    """

    id: str
    account: str
    key: str
    amount: Nano
    expires_at: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of a hold.

    Attributes:
        hold: Its id.
        account, key: Whose.
        amount: What is paid; 0 for what failed or gave nothing.
        charge: For what; None where nothing was done, so that only the hold is given back.
        outcome: How the request ended: of what was ``failed`` nothing is paid.
        request_id: As in the answer's headers, for whoever looks the request up. Clients may repeat it.
        at: When the request ended.
        price_list: Digest of the list that ``amount`` follows.
        was_held: Whether there was a hold. What failed is counted once as its hold goes, and without one as it is said.
    """

    hold: str
    account: str
    key: str
    amount: Nano
    charge: Charge | None
    outcome: Literal["completed", "failed", "abandoned"]
    request_id: str
    at: int
    price_list: str
    was_held: bool = True
