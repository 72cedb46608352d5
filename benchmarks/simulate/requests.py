"""A request on its way, and what became of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class Outcome(Enum):
    """How a request ends; each ends in one way."""

    ANSWERED = "answered"
    REFUSED = "refused"
    LATE = "late"
    LOST = "lost"


@dataclass(slots=True, eq=False)
class Request:
    """One request.

    Attributes:
        sent: When, in seconds.
        image: Number of its image; equal numbers are the same image.
        tokens: Of its answer.
        ended: What its client does then.
        seen: Whether its replica had the image's encoding.
        attempts: Replicas that it was sent to.
    """

    sent: float
    image: int
    tokens: int
    ended: Callable[[Request, Outcome], None]
    seen: bool = False
    attempts: int = 0


@dataclass(slots=True)
class Tally:
    """What is counted from ``since`` on.

    Attributes:
        sent: Requests, counted from the beginning.
        outcomes: Of all of them.
        times: Seconds that the answers took which came from ``since`` on.
        hits: Number of these whose image had been seen.
    """

    since: float = 0.0
    sent: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    hits: int = 0

    def ended(self, request: Request, outcome: Outcome, now: float) -> None:
        """Count a request that has ended."""
        self.outcomes[outcome] += 1
        if outcome is Outcome.ANSWERED and now >= self.since:
            self.times.append(now - request.sent)
            self.hits += request.seen

    @property
    def under_way(self) -> int:
        """Requests that have not ended."""
        return self.sent - sum(self.outcomes.values())
