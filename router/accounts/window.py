"""A moving window: what was taken in the last minute, in a bucket for each second in which something was.

What was taken counts for 60 seconds at least and 61 at most: until its bucket leaves the window. So whatever minute one
looks at, it holds no more than the limit, and what is refused is refused because of the 61 seconds before. A window has
at most 61 buckets, however much is taken, and what was taken can be corrected in its bucket.

The script of :mod:`router.accounts.redis_counter` does the same, and tests hold both against each other.
"""

from __future__ import annotations

from collections import deque

from accounts.types import Limits
from router.accounts.counter import COUNTED, Amounts, Standing, Waits

_NUMBER, _REQUESTS, _IMAGES, _TOKENS = range(4)
_EVERYTHING = (_REQUESTS, _IMAGES, _TOKENS)


class Window:
    """The window of one scope. Times are numbers of buckets, and milliseconds where they say so."""

    __slots__ = ("_bucket_ms", "_buckets", "_used")

    def __init__(self, bucket_ms: int) -> None:
        self._bucket_ms = bucket_ms
        self._buckets: deque[list[int]] = deque()  # number, requests, images, tokens; the oldest first
        self._used = [0, 0, 0, 0]

    def move(self, bucket: int) -> None:
        """Forget what is too old to count, now that it is ``bucket``."""
        while self._buckets and self._buckets[0][_NUMBER] + COUNTED <= bucket:
            oldest = self._buckets.popleft()
            for kind in _EVERYTHING:
                self._used[kind] -= oldest[kind]

    def add(self, bucket: int, amounts: Amounts) -> None:
        """Count ``amounts``; ``bucket`` is the newest."""
        if not self._buckets or self._buckets[-1][_NUMBER] != bucket:
            self._buckets.append([bucket, 0, 0, 0])
        newest = self._buckets[-1]
        for kind, amount in zip(_EVERYTHING, (amounts.requests, amounts.images, amounts.tokens), strict=True):
            newest[kind] += amount
            self._used[kind] += amount

    def correct(self, bucket: int, tokens: int) -> None:
        """Count more tokens, or fewer, where some were counted before. What has left the window stays as it is."""
        for found in reversed(self._buckets):
            if found[_NUMBER] == bucket:
                found[_TOKENS] += tokens
                self._used[_TOKENS] += tokens
                return

    def waits(self, limits: Limits, amounts: Amounts, now_ms: int) -> tuple[int, int, int]:
        """Milliseconds until so many requests, images and tokens fit; 0 where they do now."""
        return (
            self._wait(_REQUESTS, limits.requests, amounts.requests, now_ms),
            self._wait(_IMAGES, limits.images, amounts.images, now_ms),
            self._wait(_TOKENS, limits.tokens, amounts.tokens, now_ms),
        )

    def standing(self, waits: Waits, now_ms: int) -> Standing:
        """How it stands, after it was decided what does not fit."""
        _, requests, images, tokens = self._used
        empty_in = (self._empty_in(kind, now_ms) for kind in _EVERYTHING)
        return Standing(Amounts(requests, images, tokens), Amounts(*empty_in), waits)

    def _wait(self, kind: int, limit: int | None, amount: int, now_ms: int) -> int:
        if limit is None or (too_much := self._used[kind] + amount - limit) <= 0:
            return 0
        for bucket in self._buckets:
            too_much -= bucket[kind]
            if too_much <= 0:
                return self._leaves_in(bucket, now_ms)
        return COUNTED * self._bucket_ms  # more than the limit itself: it never fits

    def _empty_in(self, kind: int, now_ms: int) -> int:
        newest = next((bucket for bucket in reversed(self._buckets) if bucket[kind]), None)
        return 0 if newest is None else self._leaves_in(newest, now_ms)

    def _leaves_in(self, bucket: list[int], now_ms: int) -> int:
        return (bucket[_NUMBER] + COUNTED) * self._bucket_ms - now_ms
