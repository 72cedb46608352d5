"""The load of a day, as a curve with bursts, and when its requests come. Knows nothing of servers."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass

from benchmarks.http.statistics import poisson_times

HOURS = 24
CURVE: tuple[tuple[float, float], ...] = (
    (0, 0.0), (1, 0.0), (1.1, 0.1), (7.999, 0.15), (8, 0.6), (11, 0.75), (12.5, 0.5), (15, 1.0), (18, 0.6), (20, 0.8),
    (22, 0.15), (23, 0.0), (24, 0.0),
)  # fmt: skip
"""(hour, share of the peak): a night without a request, a rush at eight, a dip at noon, a peak at three."""
RUSH = 8.0
"""The hour at which more comes from one moment to the next than the replica of the night can do."""
BURSTS: tuple[tuple[float, float, float], ...] = ((5.0, 0.4, 3.0), (13.0, 0.5, 1.8), (21.0, 0.3, 2.0))
"""(hour, hours, factor)"""


@dataclass(frozen=True, slots=True)
class Day:
    """A day sped up.

    Attributes:
        seconds: How long it takes.
        peak: Requests a second at three in the afternoon.
    """

    seconds: float
    peak: float

    def at(self, hour: float) -> float:
        """Seconds from the beginning to an hour of the day."""
        return hour * self.seconds / HOURS

    def rate(self, seconds: float) -> float:
        """Requests a second, so many seconds after its beginning."""
        hour = seconds * HOURS / self.seconds
        after = min(len(CURVE) - 1, bisect_right(CURVE, (hour, 2.0)))
        (one, low), (other, high) = CURVE[after - 1], CURVE[after]
        share = low + (high - low) * (hour - one) / (other - one)
        factor = max([1.0, *(times for begins, lasts, times in BURSTS if begins <= hour < begins + lasts)])
        return self.peak * share * factor

    def arrivals(self, seed: int) -> list[float]:
        """When requests come that know nothing of each other."""
        most = self.peak * max(factor for *_, factor in BURSTS)
        rng = random.Random(seed)  # noqa: S311  # not a secret
        return [at for at in poisson_times(most, self.seconds, seed) if rng.random() * most < self.rate(at)]
