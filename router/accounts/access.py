"""What a key allows, and what each of its requests owes: the other side of :mod:`router.asgi.billing`.

A request is checked against the key's models and tasks, then against its limits, and then money is held for the most
that it can cost. When it ends, all that it owes is written down as one record: several models are one bill.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from accounts.errors import AccountsUnavailable, ModelNotAllowed
from accounts.prices import PriceList
from accounts.types import Charge, HoldAsk, Key, Limits, Settlement
from router.asgi.billing import Estimate, Outcome

logger = logging.getLogger(__name__)

PROMPT_TOKENS = 1024
"""Tokens that an image and its question are taken to have until they are counted; the published models read fewer."""
HELD_ON_S = 60.0
"""How much longer than its deadline a request's money is held: within that time it is settled, even by a process that
takes over from one that was killed."""


class Slot(Protocol):
    """What a request owes, written down."""

    def owed(self) -> None:
        """It was sent."""
        ...

    def void(self) -> None:
        """It was not sent, and is not owed."""
        ...


class Cashier(Protocol):
    """Holds money and collects what is owed; see :class:`accounts.cashier.Cashier`."""

    async def hold(self, ask: HoldAsk) -> None:
        """Raises QuotaSpent, WrongKey, AccountsUnavailable."""
        ...

    def owe(self, settlement: Settlement) -> None:
        """Bill what a request did. Raises AccountsUnavailable where it cannot be written down."""
        ...

    def give_back(self, holds: Iterable[str]) -> None:
        """Nothing is owed for these."""
        ...


class Outbox(Protocol):
    """Keeps what is owed and not billed yet; see :class:`accounts.outbox.Outbox`."""

    def write(self, settlements: Sequence[Settlement]) -> Slot:
        """Keep what a request will owe, so that it outlives this process. Raises AccountsUnavailable."""
        ...


class Taken(Protocol):
    """What a request has taken of a key's limits."""

    def used(self, tokens: int) -> None:
        """So many it has read and written."""
        ...

    def end(self) -> None:
        """It runs no more."""
        ...


class RateLimits(Protocol):
    """Limits of keys; see :class:`router.accounts.limits.RateLimits`."""

    async def take(
        self, key_id: str, model: str, limits: Mapping[str, Limits], *, requests: int, images: int, tokens: int
    ) -> Taken:
        """Raises LimitReached, InvalidRequest, AccountsUnavailable."""
        ...

    def headers(self, key_id: str) -> Mapping[str, str]:
        """What is left, as headers of an answer."""
        ...


@dataclass(frozen=True, slots=True)
class Office:
    """What all bills of a router share.

    Attributes:
        cashier: Holds money and collects what is owed.
        outbox: Keeps what is owed until it is billed.
        rate_limits: Counts what keys ask for.
        price_list: What answers cost.
        key_limits: Limits of keys that have none of their own.
        digest: That of the price list.
        clock: The time in seconds since 1970.
    """

    cashier: Cashier
    outbox: Outbox
    rate_limits: RateLimits
    price_list: PriceList
    key_limits: Mapping[str, Limits]
    digest: str
    clock: Callable[[], float] = time.time


class KeyAccess:
    """What one key allows; see :class:`~router.asgi.billing.Access`."""

    def __init__(self, key: Key, office: Office) -> None:
        self._key = key
        self._office = office

    @property
    def caller(self) -> str:
        """See :class:`~router.asgi.billing.Access`."""
        return self._key.id

    def sees(self, model: str) -> bool:
        """See :class:`~router.asgi.billing.Access`."""
        models = self._key.spec.models
        return models is None or model in models

    def bill(self, request_id: str) -> KeyBill:
        """See :class:`~router.asgi.billing.Access`."""
        return KeyBill(self._key, self._office, request_id)

    def headers(self) -> Mapping[str, str]:
        """See :class:`~router.asgi.billing.Access`."""
        return self._office.rate_limits.headers(self._key.id)


class KeyBill:
    """What one request of a key owes; see :class:`~router.asgi.billing.Bill`."""

    def __init__(self, key: Key, office: Office, request_id: str) -> None:
        self._key = key
        self._office = office
        self._request_id = request_id
        self._lines: list[KeyLine] = []
        self._owed: list[Settlement] | None = None
        self._slot: Slot | None = None
        self._is_sent = False

    @property
    def owed(self) -> Sequence[Settlement] | None:
        """See :class:`~router.asgi.billing.Bill`."""
        return self._owed

    async def let_in(self, estimate: Estimate, remaining_s: float) -> KeyLine:
        """See :class:`~router.asgi.billing.Bill`."""
        check_allowed(self._key, estimate)
        taken = await self._take(estimate)
        line = KeyLine(estimate, taken)
        try:
            await self._hold(line, estimate, remaining_s)
        except BaseException:
            taken.end()
            raise
        self._lines.append(line)
        return line

    def written(self) -> None:
        """See :class:`~router.asgi.billing.Bill`."""
        if self._owed is None:
            owed = self._settlements("completed")
            self._slot = self._office.outbox.write(owed) if owed else None
            self._owed = owed

    def sent(self) -> None:
        """See :class:`~router.asgi.billing.Bill`."""
        if self._slot is None or self._is_sent:
            return  # what was sent was an error
        self._is_sent = True
        self._slot.owed()
        self._bill(self._owed or ())

    def end(self, outcome: Outcome) -> None:
        """See :class:`~router.asgi.billing.Bill`."""
        for line in self._lines:
            line.end()
        if self._is_sent or not self._lines:
            return
        if self._slot is not None:
            self._slot.void()
        self._bill(self._settlements("failed" if outcome == "failed" else "abandoned"))

    def _bill(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            try:
                self._office.cashier.owe(settlement)
            except AccountsUnavailable:
                logger.warning("what a request cost could not be written down, and is not billed")
                self._office.cashier.give_back([settlement.hold])

    async def _take(self, estimate: Estimate) -> Taken:
        limits = self._key.spec.limits or self._office.key_limits
        tokens = estimate.output_tokens + max(1, estimate.images) * PROMPT_TOKENS
        return await self._office.rate_limits.take(
            self._key.id, estimate.model, limits, requests=1, images=estimate.images, tokens=tokens
        )

    async def _hold(self, line: KeyLine, estimate: Estimate, remaining_s: float) -> None:
        """Nothing is held for what is free, or where there is nothing to overspend: then the key was all to look at."""
        if not self._key.prepaid and not self._key.spec.budgets:
            return
        amount = self._office.price_list.at_most(
            estimate.model, estimate.images, estimate.tasks, estimate.output_tokens, batch=estimate.batch
        )
        if amount:
            expires_at = int((self._office.clock() + remaining_s + HELD_ON_S) * 1000)
            await self._office.cashier.hold(HoldAsk(line.id, self._key.account, self._key.id, amount, expires_at))
            line.is_held = True

    def _settlements(self, outcome: Outcome) -> list[Settlement]:
        now = int(self._office.clock() * 1000)
        return [self._settlement(line, outcome, now) for line in self._lines]

    def _settlement(self, line: KeyLine, outcome: Outcome, now: int) -> Settlement:
        charge = line.charge if outcome == "completed" else line.given_up if outcome == "abandoned" else None
        return Settlement(
            hold=line.id,
            account=self._key.account,
            key=self._key.id,
            amount=0 if charge is None else self._office.price_list.amount(charge),
            charge=charge or Charge(line.model),
            outcome="failed" if charge is None else outcome,
            request_id=self._request_id,
            at=now,
            price_list=self._office.digest,
            was_held=line.is_held,
        )


@dataclass(slots=True)
class KeyLine:
    """One model's part of a request; see :class:`~router.asgi.billing.Line`."""

    estimate: Estimate
    taken: Taken
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    charge: Charge | None = None
    has_begun: bool = False
    is_held: bool = False
    arrived_tokens: int = 0

    @property
    def model(self) -> str:
        """Canonical name."""
        return self.estimate.model

    @property
    def given_up(self) -> Charge | None:
        """What is paid where the client has left: what was done until then, as far as is known here."""
        if self.charge is not None or not self.has_begun:
            return self.charge
        estimate = self.estimate
        return Charge(estimate.model, estimate.tasks, estimate.images, 0, 0, self.arrived_tokens, batch=estimate.batch)

    def began(self) -> None:
        """See :class:`~router.asgi.billing.Line`."""
        self.has_begun = True

    def arrived(self, tokens: int) -> None:
        """See :class:`~router.asgi.billing.Line`."""
        self.arrived_tokens += tokens

    def answered(self, charge: Charge) -> None:
        """See :class:`~router.asgi.billing.Line`."""
        self.charge = charge
        self.taken.used(charge.prompt_tokens + charge.completion_tokens)
        self.taken.end()

    def failed(self) -> None:
        """See :class:`~router.asgi.billing.Line`."""
        self.has_begun = False
        self.taken.used(0)
        self.taken.end()

    def end(self) -> None:
        """The request has ended, however it did."""
        if self.charge is None:
            given_up = self.given_up
            self.taken.used(0 if given_up is None else given_up.completion_tokens)
        self.taken.end()


def check_allowed(key: Key, estimate: Estimate) -> None:
    """Refuse a model or a task that the key does not allow.

    Raises:
        ModelNotAllowed: With the field that asks for it.
    """
    spec = key.spec
    if spec.models is not None and estimate.model not in spec.models:
        raise ModelNotAllowed(
            f"This key does not allow the model {estimate.model[:128]!r}. GET /v1/models lists those that it allows.",
            "model",
        )
    if spec.tasks is None:
        return
    if not estimate.tasks:
        raise ModelNotAllowed(
            f"This key allows only these tasks, so that a request must name its task: {', '.join(sorted(spec.tasks))}.",
            "task",
        )
    refused = sorted(set(estimate.tasks) - spec.tasks)
    if refused:
        raise ModelNotAllowed(
            f"This key does not allow the task {refused[0]!r}, only these: {', '.join(sorted(spec.tasks))}.", "task"
        )
