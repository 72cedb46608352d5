"""Calibration as numbers: a rising curve from scores to shares of what is right, and how far off a score is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vlm.calibration import Knot

MAX_BINS = 24
"""Of a curve: each has enough judgements for a share that does not jump."""
MIN_IN_BIN = 20
ERROR_BINS = 10
"""Of equal width, as is usual for the expected calibration error."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Something with a score that is right or wrong."""

    score: float
    right: bool


@dataclass(frozen=True, slots=True)
class Bin:
    """Some that have about the same score.

    Attributes:
        count: Their number.
        score: Their mean score.
        right: The share of them that is right.
    """

    count: int
    score: float
    right: float


def fit(judged: Sequence[Judged]) -> tuple[Knot, ...]:
    """The curve that rises and is nearest to the shares of what is right (isotonic regression over bins).

    Of a bin without a wrong or a right one, half a one is assumed, so that no confidence is exactly 0 or 1.
    """
    knots: list[Knot] = []
    for score, share in _rising([_smoothed(one) for one in _of_equal_count(judged)]):
        if not knots or score > knots[-1][0]:
            knots.append((score, share))
    return tuple(knots)


def expected_error(judged: Sequence[Judged]) -> float:
    """The mean distance between scores and the share of what is right, over bins of equal width."""
    return sum(one.count * abs(one.score - one.right) for one in reliability(judged)) / max(1, len(judged))


def reliability(judged: Sequence[Judged]) -> list[Bin]:
    """The bins of equal width that are not empty."""
    bins: list[list[Judged]] = [[] for _ in range(ERROR_BINS)]
    for one in judged:
        bins[min(ERROR_BINS - 1, int(one.score * ERROR_BINS))].append(one)
    return [_bin(one) for one in bins if one]


def least_threshold(
    confidences: Sequence[float | None], right: Sequence[bool], otherwise: Sequence[bool], share: float
) -> float | None:
    """The least confidence to be content with, so that ``share`` of the better one's accuracy is kept.

    Args:
        confidences: Of the answers of the model that is asked first; None where it found nothing.
        right: Whether those answers are right.
        otherwise: Whether the next model's answers to the same questions are.
        share: From 0 to 1.
    """
    wanted = share * max(sum(right), sum(otherwise))
    kept = sum(otherwise)
    least: float | None = None
    ordered = sorted((pair for pair in zip(confidences, right, otherwise, strict=True) if pair[0] is not None), key=_by)
    for confidence, gained in _steps(ordered):
        kept += gained
        if kept >= wanted:
            least = confidence
    return least


def _by(pair: tuple[float | None, bool, bool]) -> float:
    return -(pair[0] or 0.0)


def _steps(ordered: Sequence[tuple[float | None, bool, bool]]) -> Iterator[tuple[float, int]]:
    """Each confidence, the highest first, and what it gains to be content with it."""
    sums: dict[float, int] = {}
    for confidence, first, next_one in ordered:
        assert confidence is not None
        sums[confidence] = sums.get(confidence, 0) + first - next_one
    yield from sums.items()


def _of_equal_count(judged: Sequence[Judged]) -> list[Bin]:
    ordered = sorted(judged, key=lambda one: one.score)
    number = max(1, min(MAX_BINS, len(ordered) // MIN_IN_BIN))
    edges = [len(ordered) * index // number for index in range(number + 1)]
    return [_bin(ordered[start:end]) for start, end in pairwise(edges)]


def _bin(some: Sequence[Judged]) -> Bin:
    count = len(some)
    return Bin(count, sum(one.score for one in some) / count, sum(one.right for one in some) / count)


def _smoothed(one: Bin) -> Bin:
    half = 0.5 / one.count
    return Bin(one.count, one.score, min(1 - half, max(half, one.right)))


def _rising(bins: Sequence[Bin]) -> Iterator[Knot]:
    """The bins' shares, those that fall averaged with what is before them (pool adjacent violators)."""
    pools: list[tuple[float, list[Bin]]] = []
    for one in bins:
        pools.append((one.right, [one]))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (_, last), (_, before) = pools.pop(), pools.pop()
            pools.append((_share([*before, *last]), [*before, *last]))
    for share, pooled in pools:
        yield from ((one.score, share) for one in (pooled[0], pooled[-1]))


def _share(bins: Sequence[Bin]) -> float:
    return sum(one.count * one.right for one in bins) / sum(one.count for one in bins)


def calibrated(judged: Sequence[Judged], at: Callable[[float], float]) -> list[Judged]:
    """The same with confidences in place of scores."""
    return [Judged(at(one.score), one.right) for one in judged]
