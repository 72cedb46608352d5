"""How often and for how long a request is tried again, and what has become of such requests. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Trouble = Literal["lost", "closed", "full", "not ready"]
"""Why a request is tried again: what worked on it has ended; the engine takes no more requests; there is no room at one
replica; after any of these, the model has no replica that can answer yet."""

GivenUp = Literal["lost too often", "refused too often", "budget", "patience", "not repeatable", "failed"]
"""Why a request is not tried once more: as the fields of :class:`RetryPolicy` say; the new stream differs from what the
client has; or another attempt fails for a reason that trying again does not mend."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How far retries go.

    Attributes:
        share: Retries of a model's requests within ``window_s``, as a share of the requests. Retries that were not
            bounded would multiply an overload. Those of requests that found no room are counted apart from all others,
            and may be as many again.
        floor: Retries within ``window_s`` that are allowed beyond that share, so that a process that is lost with all
            its requests costs none of them where few came before.
        window_s: Seconds that requests and retries count for.
        patience_s: Longest time in seconds from the first trouble of a request until its last attempt begins. As long
            as a lost process takes to be replaced.
        first_pause_s: Pause in seconds before the second attempt; it doubles from one to the next. Half of each is
            random, so that requests that were lost together do not come back together.
        longest_pause_s: Longest pause in seconds.
        max_losses: A request is given up when it has lost so many replicas: it may be what ended them.
        max_refusals: How often a request that finds no room is tried again.
    """

    share: float = 0.2
    floor: int = 32
    window_s: float = 10.0
    patience_s: float = 30.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 1.0
    max_losses: int = 2
    max_refusals: int = 2


@dataclass(frozen=True, slots=True)
class RetryStats:
    """Counters since the process started.

    Attributes:
        retries: Attempts beyond the first of a request, by its model and by what made them necessary.
        resumed: Streams of which a client had a part, and that went on with another attempt, by model.
        given_up: Requests that had trouble and were answered with an error, by model and by the reason for it.
    """

    retries: Mapping[tuple[str, Trouble], int]
    resumed: Mapping[str, int]
    given_up: Mapping[tuple[str, GivenUp], int]
