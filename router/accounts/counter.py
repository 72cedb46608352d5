"""What counters of limits are asked and say: plain data, and the interface of both kinds of counter.

Counters know scopes, which are names with limits, and neither keys nor models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from accounts.types import Limits

BUCKETS = 60
"""A window consists of so many buckets and of the one that has just begun."""
COUNTED = BUCKETS + 1


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is taken, or was."""

    requests: int
    images: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Part:
    """What stands between an ask and its being let in: a scope in which all is counted, and its limits."""

    scope: str
    limits: Limits

    @property
    def has_places(self) -> bool:
        """Whether it limits how many run at the same time."""
        return self.limits.concurrent is not None


@dataclass(frozen=True, slots=True)
class Ask:
    """An amount that is to be taken in all of the scopes or in none.

    Attributes:
        parts: The scopes.
        amounts: How much. Where a part limits how many run at the same time, a place among those is taken too.
    """

    parts: tuple[Part, ...]
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class Waits:
    """Milliseconds until the amounts of an ask fit; 0 where they do, and for places 1 where there is none."""

    requests: int
    images: int
    tokens: int
    place: int

    @property
    def any(self) -> bool:
        """Whether something does not fit."""
        return bool(self.requests or self.images or self.tokens or self.place)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a scope stands after an ask.

    Attributes:
        used: What counts in it, with what was just let in.
        empty_in: Milliseconds until no request counts any more, and likewise for images and tokens.
        waits: What did not fit.
    """

    used: Amounts
    empty_in: Amounts
    waits: Waits


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of an ask.

    Attributes:
        let_in: Whether all was taken, in every scope; else nothing was.
        bucket: Where it is counted, for whoever corrects it.
        standings: In the order of the ask's parts.
    """

    let_in: bool
    bucket: int
    standings: tuple[Standing, ...]


class Counter(Protocol):
    """Counts what was taken in scopes."""

    async def take(self, ask: Ask) -> Decision:
        """Take all of it or nothing, with nothing in between for others.

        Raises:
            AccountsUnavailable: What counts does not answer. Nothing was taken, or it is given back.
        """
        ...

    def correct(self, scopes: Sequence[str], bucket: int, tokens: int) -> None:
        """So many more tokens were used than were taken, or fewer where it is negative."""
        ...

    def leave(self, scopes: Sequence[str]) -> None:
        """Free a place in each of the scopes; each must have been taken."""
        ...

    async def close(self) -> None:
        """Nothing is counted after this."""
        ...
