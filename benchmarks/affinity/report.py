"""What was seen, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """Of one set of replicas.

    Attributes:
        replicas: Their number.
        by_image: Whether images have replicas of their own.
        hit_rate: Share of the requests whose image was in the cache of the replica that answered.
        imbalance: Requests of the busiest replica over their mean.
        p50_s, p95_s: Seconds until the answer.
    """

    replicas: int
    by_image: bool
    hit_rate: float
    imbalance: float
    p50_s: float
    p95_s: float


def table(results: Sequence[Result]) -> Iterator[str]:
    """One line for each, for Markdown."""
    yield "| replicas | chosen by | hit rate | busiest / mean | p50 ms | p95 ms |"
    yield "|--:|---|--:|--:|--:|--:|"
    for one in results:
        chosen = "-" if one.replicas == 1 else ("image" if one.by_image else "Serve")
        yield (
            f"| {one.replicas} | {chosen} | {one.hit_rate:.3f} | {one.imbalance:.2f} "
            f"| {1000 * one.p50_s:.0f} | {1000 * one.p95_s:.0f} |"
        )


def as_json(results: Sequence[Result]) -> str:
    """All of it."""
    return json.dumps([asdict(one) for one in results], indent=1)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[int(share * (len(values) - 1))]
