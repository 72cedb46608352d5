"""What is computed from times and rates. Knows neither HTTP nor processes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Times:
    """Of a number of answers, in milliseconds.

    Attributes:
        p50, p95, p99: The time that so many of 100 do not exceed.
    """

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of two rates that were measured in turns: the median of the rounds' ratios, and the least and the greatest."""

    median: float
    least: float
    greatest: float


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all values do not exceed.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("a quantile of no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def times(seconds: Sequence[float]) -> Times:
    """The quantiles of times in seconds; all 0 without any."""
    if not seconds:
        return Times(0.0, 0.0, 0.0)
    p50, p95, p99 = (1000 * quantile(seconds, share) for share in (0.5, 0.95, 0.99))
    return Times(p50, p95, p99)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The ratio of two systems' rates, which have taken turns in the same rounds.

    Raises:
        ValueError: They have not.
    """
    each = [one / other for one, other in zip(ours, theirs, strict=True)]
    if not each:
        raise ValueError("a ratio of no rounds")
    return Ratio(median(each), min(each), max(each))


def goodput(seconds: Sequence[float], objective_s: float, duration_s: float) -> float:
    """Answers a second within the objective. ``seconds`` has the times of the good answers: others never count."""
    return sum(one <= objective_s for one in seconds) / duration_s


def poisson_times(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests arrive that know nothing of each other: ``rate`` a second on average, for so many seconds."""
    return list(_arrivals(random.Random(seed), rate, seconds))  # noqa: S311  # not a secret


def _arrivals(rng: random.Random, rate: float, seconds: float) -> Iterator[float]:
    now = rng.expovariate(rate)
    while now < seconds:
        yield now
        now += rng.expovariate(rate)
