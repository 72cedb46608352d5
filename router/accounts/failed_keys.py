"""Limits how often an address may come with a wrong key.

Keys cannot be guessed; this is so that nobody makes the database look up keys without end. So only whoever comes with a
key that is not known asks here: right keys are never kept out, although a stranger may share their address behind a
proxy. With Redis, failures are counted over all routers; that the limit is reached, each learns at the first failure.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from accounts.errors import LimitReached
from accounts.types import Limits
from router.accounts.counter import Amounts, Ask, Counter, Part

REMEMBERED_ADDRESSES = 10_000
"""The addresses that are kept out; of more, the one that has been for the longest is let in to be counted again."""
_ONE = Amounts(requests=1, images=0, tokens=0)
_NETWORK_BITS = 64
"""Of an IPv6 address, the part that tells customers apart: each has 2 ** 64 addresses of their own."""


class FailedKeys:
    """The addresses that have come with wrong keys."""

    def __init__(self, counter: Counter, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow ``per_minute`` failures of an address; ``clock`` is in seconds and never goes back."""
        self._counter = counter
        self._limits = Limits(requests=per_minute)
        self._clock = clock
        self._kept_out: OrderedDict[str, float] = OrderedDict()  # until when

    def may_try(self, address: str) -> None:
        """To be asked before a key is looked up that is not known yet.

        Raises:
            LimitReached: Too many were wrong.
        """
        name = _customer(address)
        left_s = self._kept_out.get(name, 0.0) - self._clock()
        if left_s > 0:
            raise _too_many(left_s)
        self._kept_out.pop(name, None)

    async def failed(self, address: str) -> None:
        """The key that came from there is wrong.

        Raises:
            LimitReached: So were too many before.
            AccountsUnavailable: What counts them does not answer.
        """
        name = _customer(address)
        decision = await self._counter.take(Ask((Part(f"failed|{name}", self._limits),), _ONE))
        if not decision.let_in:
            left_s = decision.standings[0].waits.requests / 1000
            self._keep_out(name, left_s)
            raise _too_many(left_s)

    def _keep_out(self, name: str, seconds: float) -> None:
        self._kept_out[name] = self._clock() + seconds
        if len(self._kept_out) > REMEMBERED_ADDRESSES:
            self._kept_out.popitem(last=False)


def _customer(address: str) -> str:
    """The address, or of IPv6 its network; what is no address stands for itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> _NETWORK_BITS << _NETWORK_BITS)}/{_NETWORK_BITS}"


def _too_many(left_s: float) -> LimitReached:
    message = f"Too many wrong API keys came from this address. Try again in {left_s:.0f} seconds."
    return LimitReached(message, kind="requests", retry_after_s=left_s)
