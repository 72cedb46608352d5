"""What a key allows, and what each of its requests owes: the other side of :mod:`router.asgi.billing`.

A request is checked against the key's models and tasks, then against its limits, and then money is held for the most
that it can cost. When it ends, all that it owes is written down as one record: several models are one bill.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from accounts.cashier import Cashier
from accounts.errors import ModelNotAllowed, model_not_allowed
from accounts.outbox import Outbox, Slot
from accounts.prices import PriceList
from accounts.types import Charge, HoldAsk, Key, Limits, Settlement
from router.accounts.limits import RateLimits, Taken
from router.asgi.billing import Estimate, Outcome

PROMPT_TOKENS = 1024
"""Tokens that an image and its question are taken to have until they are counted; the published models read fewer."""
HELD_ON_S = 60.0
"""How much longer than its deadline a request's money is held: within that time it is settled, even by a process that
takes over from one that was killed."""


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
        return self._key.spec.allows_model(model)

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
        self._is_lost = False

    @property
    def owed(self) -> Sequence[Settlement] | None:
        """See :class:`~router.asgi.billing.Bill`."""
        return self._owed

    def check(self, estimate: Estimate) -> None:
        """See :class:`~router.asgi.billing.Bill`."""
        check_allowed(self._key, estimate)

    async def let_in(self, estimate: Estimate, remaining_s: float) -> KeyLine:
        """See :class:`~router.asgi.billing.Bill`."""
        check_allowed(self._key, estimate)
        taken = await self._take(estimate)
        line = KeyLine(estimate, taken, self._forget)
        try:
            await self._hold(line, estimate, remaining_s)
        except BaseException:
            taken.used(0)
            taken.end()
            raise
        self._lines.append(line)
        return line

    def written(self) -> None:
        """See :class:`~router.asgi.billing.Bill`."""
        if self._owed is None:
            owed = self._settlements("completed")
            self._is_lost = True  # unless it is written: the last part of the answer is an error else
            self._slot = self._office.outbox.write(owed) if owed else None
            self._owed, self._is_lost = owed, False

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
        self._bill(self._settlements("failed" if outcome == "failed" or self._is_lost else "abandoned"))

    def _forget(self, line: KeyLine) -> None:
        """It has failed. Its money is free at once: the same bill may ask others, and the same model again."""
        if line.charge is None and line in self._lines:
            self._lines.remove(line)
            self._bill([self._settlement(line, "failed", self._now())])

    def _bill(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            self._office.cashier.owe(settlement)

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
        now = self._now()
        return [self._settlement(line, outcome, now) for line in self._lines]

    def _now(self) -> int:
        return int(self._office.clock() * 1000)

    def _settlement(self, line: KeyLine, outcome: Outcome, now: int) -> Settlement:
        charge = line.charge if outcome == "completed" else line.given_up if outcome == "abandoned" else None
        # What failed is counted for models that have a price. Others need not be there: clients make up their names.
        failed = Charge(line.model) if line.model in self._office.price_list.models else None
        return Settlement(
            hold=line.id,
            account=self._key.account,
            key=self._key.id,
            amount=0 if charge is None else self._office.price_list.amount(charge),
            charge=charge or failed,
            outcome="failed" if charge is None else outcome,
            request_id=self._request_id,
            at=now,
            price_list=self._office.digest,
            was_held=line.is_held,
        )


@dataclass(slots=True, eq=False)
class KeyLine:
    """One model's part of a request; see :class:`~router.asgi.billing.Line`."""

    estimate: Estimate
    taken: Taken
    forget: Callable[[KeyLine], None]
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
        self.forget(self)

    def ended(self) -> None:
        """See :class:`~router.asgi.billing.Line`."""
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
    if not spec.allows_model(estimate.model):
        raise model_not_allowed(estimate.model, "model")
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
