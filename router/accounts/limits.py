"""How much a key may ask for in a minute, and at the same time: over all models, and of each.

A minute is a moving window (:mod:`router.accounts.window`): never more than the limit in any 60 seconds, whichever they
are. What a request can come to is taken when it is let in, all of it or nothing, and corrected when it has ended.

In the memory of one process that is exact, and so it is over all processes that count in the same Redis or Valkey: each
request is decided by one script there, by that server's clock. What is not exact:

- Routers that each count in their own memory let in as many times the limit as there are routers.
- A Redis that loses its memory counts anew, so that up to two limits are let in within a minute. Requests that run are
  counted again within a third of the lease.
- Of a router that was killed, the requests that ran take their places until its lease ends, 15 seconds later; and a
  router that does not reach Redis for longer than that may come back to places that others have taken meanwhile.
- A correction that is lost because Redis failed at that moment leaves too much counted for up to 61 seconds, and too
  little only where more was used than was taken.

While Redis does not answer, nothing is let in: a limit that stops counting under load, or for whoever can disturb it,
is none. Requests are then refused within a second, with an error that says to try again.

It knows keys, models and limits, and neither HTTP nor what a request contains.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from accounts.errors import AccountsError, LimitReached
from accounts.types import EVERY_MODEL, Limits
from router.accounts.counter import Amounts, Ask, Counter, Decision, Part
from router.accounts.failed_keys import FailedKeys
from router.accounts.memory_counter import MemoryCounter
from router.accounts.rate_headers import rate_headers
from router.config import RouterConfig
from vlm.errors import InvalidRequest

PLACE_RETRY_S = 1.0
"""When to try again where too many run at the same time: nobody knows when one of them ends."""
REMEMBERED_KEYS = 10_000
"""Of so many keys the headers are kept, those that asked last."""
REMEMBERED_S = 60.0
STRANGERS = 10_000
"""Addresses that are counted in memory; as there is no end of them, the one that came the longest ago is forgotten."""

_UNLIMITED = Limits()


def limits_of(config: RouterConfig) -> dict[str, Limits]:
    """The limits of keys that have none of their own, by model."""
    return {model: Limits(**limits.model_dump()) for model, limits in config.key_limits.items()}


def open_limits(redis_url: str | None) -> RateLimits:
    """Limits that are counted at ``redis_url``, which may hold a password, or in the memory of this process.

    Raises:
        AccountsError: The URL cannot be read.
    """
    if redis_url is None:
        return RateLimits(MemoryCounter(), MemoryCounter(most_scopes=STRANGERS))
    from router.accounts.redis_counter import RedisCounter

    try:
        shared = RedisCounter(redis_url)
    except ValueError:
        raise AccountsError("the URL of what counts limits cannot be read") from None  # it may have a password
    return RateLimits(shared, shared)


class RateLimits:
    """The limits of all keys. They belong to one event loop."""

    def __init__(self, counter: Counter, strangers: Counter, clock: Callable[[], float] = time.monotonic) -> None:
        """Count keys with ``counter``, and those who have none with ``strangers``, which may be the same.

        ``clock`` is in seconds and never goes back.
        """
        self._counter = counter
        self._strangers = strangers
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, dict[str, str]]] = OrderedDict()  # by key: until when, headers

    async def take(
        self,
        key_id: str,
        model: str,
        limits: Mapping[str, Limits],
        *,
        requests: int = 1,
        images: int = 0,
        tokens: int = 0,
    ) -> Taken:
        """Take what a request to one model can come to, and a place among those that run at the same time.

        Args:
            key_id: Whose.
            model: Canonical name.
            limits: Those of the key, by model and for all together.
            requests, images: How many.
            tokens: The most that it can read and write; :meth:`Taken.used` corrects it.

        Returns:
            What was taken. Its :meth:`Taken.end` must be called in any case.

        Raises:
            LimitReached: It does not fit now; nothing was taken.
            InvalidRequest: It alone is more than a limit, so that it never fits.
            AccountsUnavailable: What counts the limits does not answer.
        """
        parts = _parts(key_id, model, limits)
        if not parts:
            return Taken(self._counter, (), 0, tokens)
        amounts = Amounts(requests, images, tokens)
        _refuse_impossible(parts, amounts)
        decision = await self._counter.take(Ask(parts, amounts))
        self._remember(key_id, rate_headers(parts, decision))
        if not decision.let_in:
            raise _reached(parts, decision)
        return Taken(self._counter, parts, decision.bucket, tokens)

    def headers(self, key_id: str) -> Mapping[str, str]:
        """The ``x-ratelimit-*`` headers of an answer, as of the key's last request here.

        There are none of a key that has no limits, or has asked nothing here for a minute.
        """
        until, headers = self._seen.get(key_id, (-math.inf, {}))
        return headers if self._clock() < until else {}

    def failed_keys(self, per_minute: int) -> FailedKeys:
        """The limit of wrong keys for each address, counted in the same place."""
        return FailedKeys(self._strangers, per_minute, self._clock)

    async def close(self) -> None:
        """Count nothing any more."""
        await self._counter.close()
        await self._strangers.close()

    def _remember(self, key_id: str, headers: dict[str, str]) -> None:
        self._seen[key_id] = self._clock() + REMEMBERED_S, headers
        self._seen.move_to_end(key_id)
        if len(self._seen) > REMEMBERED_KEYS:
            self._seen.popitem(last=False)


class Taken:
    """What one request has taken. Nothing here waits, so that it can be called wherever a request ends."""

    def __init__(self, counter: Counter, parts: tuple[Part, ...], bucket: int, tokens: int) -> None:
        self._counter = counter
        self._counted = tuple(part.scope for part in parts if part.limits.tokens is not None)
        self._placed = tuple(part.scope for part in parts if part.has_places)
        self._bucket = bucket
        self._tokens = tokens

    def used(self, tokens: int) -> None:
        """So many tokens were read and written in fact. What is said last holds; what is never said stays taken."""
        difference, self._tokens = tokens - self._tokens, tokens
        if difference and self._counted:
            self._counter.correct(self._counted, self._bucket, difference)

    def end(self) -> None:
        """The request has ended and its place is free; nothing happens the second time."""
        placed, self._placed = self._placed, ()
        if placed:
            self._counter.leave(placed)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A limit that is reached; they are sorted by how long one has to wait."""

    wait_s: float
    kind: str
    limit: int | None
    of_all: bool

    @property
    def message(self) -> str:
        whose = "this key, all models together" if self.of_all else "this key and model"
        what = "requests at the same time" if self.kind == "concurrent" else f"{self.kind} a minute"
        return f"The limit of {self.limit} {what} is reached ({whose}). Try again in {self.wait_s:.1f} seconds."


def _parts(key_id: str, model: str, limits: Mapping[str, Limits]) -> tuple[Part, ...]:
    named = ((name, limits.get(name, _UNLIMITED)) for name in (EVERY_MODEL, model))
    return tuple(Part(f"{key_id}|{name}", limit) for name, limit in named if limit != _UNLIMITED)


def _refuse_impossible(parts: tuple[Part, ...], amounts: Amounts) -> None:
    for part in parts:
        if (most := part.limits.images) is not None and amounts.images > most:
            raise InvalidRequest(f"The request has {amounts.images} images, and the key allows {most} a minute.")
        if (most := part.limits.tokens) is not None and amounts.tokens > most:
            raise InvalidRequest(
                f"The request can come to {amounts.tokens} tokens, and the key allows {most} a minute: ask for fewer "
                "tokens of output."
            )
        if (most := part.limits.requests) is not None and amounts.requests > most:
            raise InvalidRequest(f"The request counts as {amounts.requests}, and the key allows {most} a minute.")


def _reached(parts: tuple[Part, ...], decision: Decision) -> LimitReached:
    """The one for which one has to wait the longest: it makes no sense to try before."""
    refusals: list[_Refusal] = []
    for part, standing in zip(parts, decision.standings, strict=True):
        waits, limits = standing.waits, part.limits
        of_all = part.scope.endswith(f"|{EVERY_MODEL}")
        found = (
            (waits.requests / 1000, "requests", limits.requests),
            (waits.images / 1000, "images", limits.images),
            (waits.tokens / 1000, "tokens", limits.tokens),
            (waits.place * PLACE_RETRY_S, "concurrent", limits.concurrent),
        )
        refusals += [_Refusal(wait_s, kind, limit, of_all) for wait_s, kind, limit in found if wait_s]
    longest = max(refusals, key=lambda refusal: refusal.wait_s)
    return LimitReached(longest.message, kind=longest.kind, retry_after_s=longest.wait_s)
