"""How many retries there may be: a share of the recent requests and a few more."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

SLICES = 10
"""Requests are counted together for a tenth of the window; so much of it passes at once."""


@dataclass(slots=True)
class _Slice:
    number: int
    requests: int = 0
    retries: int = 0


class RetryBudget:
    """Counts the requests and retries of one model within a window that ends now."""

    def __init__(self, share: float, floor: int, window_s: float) -> None:
        """``floor`` retries are allowed in the window beyond the ``share`` of its requests."""
        self._share = share
        self._floor = floor
        self._slice_s = window_s / SLICES
        self._slices: deque[_Slice] = deque()

    def note_request(self, now: float) -> None:
        """A request has come at ``now``, in seconds on the caller's clock."""
        self._latest(now).requests += 1

    def take(self, now: float) -> bool:
        """Take one retry; False if there is none left."""
        latest = self._latest(now)
        requests = sum(one.requests for one in self._slices)
        retries = sum(one.retries for one in self._slices)
        if retries + 1 > self._floor + self._share * requests:
            return False
        latest.retries += 1
        return True

    def _latest(self, now: float) -> _Slice:
        number = int(now / self._slice_s)
        while self._slices and self._slices[0].number <= number - SLICES:
            self._slices.popleft()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        return self._slices[-1]
