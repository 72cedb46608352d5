"""How many replicas a model should have, from the work that waits for them. Pure Python; knows neither Ray nor HTTP.

Work is counted in replicas and seconds, not in requests, because the requests of one model take ten times as long as
those of another::

    busy          what is worked on, as a number of full replicas: two half full ones are 1.0
    waiting_s     seconds that one replica would take for all that waits
    needed        busy / occupancy + waiting_s / target_queue_s

The first part carries the load without filling the last place, and the second has what waits done within
``target_queue_s``. A queue that becomes shorter by itself is no reason to add a replica which starts when it is gone:
what waited for the first replica of a model that was at zero, or what is left of a burst. There are more replicas as
soon as more are needed, and fewer only where fewer were enough for ``quiet_s`` without a break, the busiest moment of
that time included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from serve_args import parse_args

Seconds = Annotated[float, Field(gt=0)]

ROUNDING = 1e-9
"""A sum of shares that is meant to be 2 may be a little more, and is no reason for a third replica."""


class ScalingConfig(BaseModel):
    """The settings of the rule.

    Attributes:
        target_queue_s: Seconds within which the work that waits should be done, above 0. The smaller, the more replicas
            are added for the same queue, which the routers keep to one batch for each replica: well below the time of a
            batch, a rush is seen for what it is.
        occupancy: Share of the places of all replicas that may be worked on before one is added, above 0 and at most 1.
            Below 1, a replica is on its way before requests have to wait.
        margin: Share of that again which is kept free before a replica is given up, from 0 and below 1: between the two
            nothing changes, so that a steady load does not make replicas come and go.
        max_step: Number of replicas that may be added to those that run, above 0, until they run as well.
        start_s: Seconds that a replica takes to start, above 0. What waits counts only if it will not be gone by then.
        settle_s: Seconds for which nothing is added after a replica has started, 0 or more: what it takes off the
            others shows only when they have measured again.
        quiet_s: Seconds for which fewer replicas must have been enough before any is given up, above 0.
        idle_s: Seconds without a request after which a model whose ``min_replicas`` is 0 has none left, above 0.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    target_queue_s: Seconds = 0.5
    occupancy: Annotated[float, Field(gt=0, le=1)] = 0.8
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.25
    max_step: Annotated[int, Field(gt=0)] = 4
    start_s: Seconds = 10.0
    settle_s: Annotated[float, Field(ge=0)] = 3.0
    quiet_s: Seconds = 300.0
    idle_s: Seconds = 900.0

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Self:
        """Read the ``policy_kwargs`` of a Serve config.

        Raises:
            ConfigError: A key is unknown or a value is impossible; the message names it.
        """
        return parse_args(cls, args)


@dataclass(frozen=True, slots=True)
class Seen:
    """A model at one moment.

    Attributes:
        now: Seconds of a clock.
        running: Number of replicas that answer.
        target: Number of replicas that there are meant to be; those that do not run are being started.
        minimum, maximum: Bounds of that number.
        busy: What is worked on, as a number of full replicas.
        waiting_s: Seconds that one replica would take for what waits.
        growth: By how much that changes in a second; below 0, it becomes less. Without new requests, it would fall by
            the number of full replicas.
        asked: Whether there was a request since the last moment, or there is one now.
    """

    now: float
    running: int
    target: int
    minimum: int
    maximum: int
    busy: float = 0.0
    waiting_s: float = 0.0
    growth: float = 0.0
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of a model from one moment to the next.

    Attributes:
        running: Number of replicas that answered.
        grown_at: When that number last rose.
        quiet_since: Since when fewer replicas than there are would do, if they would.
        most: Number of replicas that were needed since then.
        asked_at: When there was last a request, or a replica that was being started.
    """

    running: int = 0
    grown_at: float = -math.inf
    quiet_since: float | None = None
    most: int = 0
    asked_at: float = -math.inf


def decide(config: ScalingConfig, seen: Seen, past: Past) -> tuple[int, Past]:
    """How many replicas there should be, and what to remember until the next time."""
    past = _noted(seen, past)
    more = min(needed(config.occupancy, config, lasting(config, seen)), seen.running + config.max_step)
    if more > seen.target and seen.now - past.grown_at >= config.settle_s:
        return _within(seen, more), replace(past, quiet_since=None)
    if not seen.running:  # nothing is measured, and whoever is to be the first is not given up while it starts
        return _within(seen, seen.target), replace(past, quiet_since=None)
    return _fewer(config, seen, past)


def needed(occupancy: float, config: ScalingConfig, seen: Seen) -> int:
    """How many replicas carry what is seen where so much of each may be worked on."""
    return math.ceil(seen.busy / occupancy + seen.waiting_s / config.target_queue_s - ROUNDING)


def lasting(config: ScalingConfig, seen: Seen) -> Seen:
    """What is left of the work once the queue has become shorter by itself, if it does."""
    falls = max(0.0, -seen.growth)
    gone = falls * config.start_s > seen.waiting_s
    return replace(seen, busy=max(0.0, seen.busy - falls), waiting_s=0.0 if gone else seen.waiting_s)


def _noted(seen: Seen, past: Past) -> Past:
    grown_at = seen.now if seen.running > past.running else past.grown_at
    asked = seen.asked or not seen.running or past.asked_at == -math.inf
    return replace(past, running=seen.running, grown_at=grown_at, asked_at=seen.now if asked else past.asked_at)


def _fewer(config: ScalingConfig, seen: Seen, past: Past) -> tuple[int, Past]:
    """No more replicas are needed."""
    enough = max(1, seen.minimum, needed(config.occupancy * (1 - config.margin), config, seen))
    if seen.minimum == 0 and not seen.asked and seen.now - past.asked_at >= config.idle_s:
        return 0, replace(past, quiet_since=None)
    if enough >= seen.target:
        return _within(seen, seen.target), replace(past, quiet_since=None)
    since = seen.now if past.quiet_since is None else past.quiet_since
    most = enough if past.quiet_since is None else max(past.most, enough)
    if seen.now - since >= config.quiet_s:
        # Someone may have set a lower target meanwhile, and a quiet time never ends in more replicas.
        return _within(seen, min(most, seen.target)), replace(past, quiet_since=None)
    return _within(seen, seen.target), replace(past, quiet_since=since, most=most)


def _within(seen: Seen, replicas: int) -> int:
    return max(seen.minimum, min(seen.maximum, replicas))
