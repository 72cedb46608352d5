"""What a request may do and what it owes: the seam at which accounts are put before the endpoints.

An endpoint tells what is asked for and what was done; who asks, what that costs and where it is written down is known
behind it. Without accounts, everything is allowed and nothing is owed.

A request is let in once for each model that is asked::

    bill.check(estimate)                          refused here before it waits for anything
    lines = [await bill.let_in(estimate) ...]     refused here, or its places and its money are kept
    line.began(), line.arrived(tokens)            what there is to pay for, should the client leave
    line.answered(charge)                         what there is to pay for
    line.failed()                                 it is paid for nothing, and its money is given back
    line.ended()                                  in any case: its places are free
    bill.written()                                before the last bytes go out: what is owed survives this process
    bill.sent()                                   as they go out: from here on it is owed
    bill.end()                                    in any case: what was not sent costs nothing
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from starlette.types import Scope

from accounts.types import Charge, Settlement

Outcome = Literal["completed", "failed", "abandoned"]

ACCESS_KEY = "gigarouter.access"
"""Where the middleware that knows the key leaves what it allows."""
BILL_KEY = "gigarouter.bill"
"""Where the bill of a request is, for whoever stores its answer or passes it on."""


MOST_TOKENS = 2048
"""Of one answer, whatever limit its request sets: no model here has a longer context."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The most that a request to one model can do.

    Attributes:
        model: Canonical name.
        images: Number of its images.
        tasks: Canonical names of its tasks; empty where it does not name them.
        output_tokens: Most tokens of all its answers together.
        batch: Whether others go first.
    """

    model: str
    images: int
    tasks: tuple[str, ...]
    output_tokens: int
    batch: bool = False


class Line(Protocol):
    """One model's part of a request."""

    def began(self) -> None:
        """The request has been sent to the model: from here on, who leaves pays for its images."""
        ...

    def arrived(self, tokens: int) -> None:
        """So many further tokens of the answer are here: who leaves pays for them."""
        ...

    def answered(self, charge: Charge) -> None:
        """The model has answered in full."""
        ...

    def failed(self) -> None:
        """The model has not answered, which costs nothing."""
        ...

    def ended(self) -> None:
        """Nothing more is asked of the model, whether it has answered or not."""
        ...


class Bill(Protocol):
    """What one request owes."""

    @property
    def owed(self) -> Sequence[Settlement] | None:
        """What is owed once the answer was sent; None until it is written."""
        ...

    def check(self, estimate: Estimate) -> None:
        """Refuse what the key does not allow, before the request waits for anything or makes anything start.

        Raises:
            ModelNotAllowed: With the field that asks for it.
        """
        ...

    async def let_in(self, estimate: Estimate, remaining_s: float) -> Line:
        """Keep places and money for a request to one model.

        Args:
            estimate: What it can come to.
            remaining_s: Seconds until its deadline.

        Raises:
            ModelNotAllowed, LimitReached, QuotaSpent, AccountsUnavailable
        """
        ...

    def written(self) -> None:
        """All is known, and the last bytes are about to be sent."""
        ...

    def sent(self) -> None:
        """The last bytes are handed to the connection now. Whoever passes them on calls it."""
        ...

    def end(self, outcome: Outcome) -> None:
        """The request has ended. Where its answer was sent, that is all; else what is owed follows from how it ended.

        Of what has failed nothing is; who has left, before the answer or while it was sent, pays for what was done. So
        does who has not read it in time.
        """
        ...


class Access(Protocol):
    """What the key of a request allows."""

    @property
    def caller(self) -> str:
        """Who asks: the same for the same key in every router process."""
        ...

    def sees(self, model: str) -> bool:
        """Whether the key may ask this model, and see that it is there."""
        ...

    def bill(self, request_id: str) -> Bill:
        """A bill for one request, on which nothing stands yet."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Those of an answer that tell how much of the key's limits is left."""
        ...


class Free:
    """A bill on which nothing is written, and a line of it."""

    @property
    def owed(self) -> Sequence[Settlement] | None:
        """See :class:`Bill`."""
        return None

    def check(self, estimate: Estimate) -> None:
        """See :class:`Bill`."""

    async def let_in(self, estimate: Estimate, remaining_s: float) -> Line:  # noqa: ARG002  the protocol has it
        """See :class:`Bill`."""
        return self

    def began(self) -> None:
        """See :class:`Line`."""

    def arrived(self, tokens: int) -> None:
        """See :class:`Line`."""

    def answered(self, charge: Charge) -> None:
        """See :class:`Line`."""

    def failed(self) -> None:
        """See :class:`Line`."""

    def ended(self) -> None:
        """See :class:`Line`."""

    def written(self) -> None:
        """See :class:`Bill`."""

    def sent(self) -> None:
        """See :class:`Bill`."""

    def end(self, outcome: Outcome) -> None:
        """See :class:`Bill`."""


FREE = Free()


def access_of(scope: Scope) -> Access | None:
    """What the key of a request allows; None where no keys are asked for, so that everything is allowed."""
    found: Access | None = scope.get(ACCESS_KEY)
    return found


def bill_of(scope: Scope, request_id: str) -> Bill:
    """A new bill for a request, which others find in its scope."""
    access = access_of(scope)
    bill = FREE if access is None else access.bill(request_id)
    scope[BILL_KEY] = bill
    return bill


def owed_of(scope: Scope) -> Sequence[Settlement] | None:
    """What is owed for a request once its answer was sent; None as long as that is not known."""
    bill: Bill | None = scope.get(BILL_KEY)
    return None if bill is None else bill.owed
