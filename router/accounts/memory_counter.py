"""Counts limits in the memory of this process, exactly: nothing comes between the check and the count.

What has not been asked for in a window is forgotten, so that as many scopes are kept as were asked for in the last
minute or run now.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from router.accounts.counter import BUCKETS, COUNTED, Amounts, Ask, Decision, Part, Waits
from router.accounts.window import Window


class MemoryCounter:
    """A :class:`~router.accounts.counter.Counter` for one process."""

    def __init__(
        self,
        *,
        window_s: float = 60.0,
        most_scopes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count nothing yet.

        Args:
            window_s: Length of a minute.
            most_scopes: Where there are more, what was asked for the longest ago is forgotten although it counts.
            clock: In seconds; it never goes back.
        """
        self._most_scopes = most_scopes
        self._bucket_ms = round(window_s * 1000 / BUCKETS)
        self._clock = clock
        self._scopes: OrderedDict[str, _Scope] = OrderedDict()  # the one that was asked for last is the last

    def __len__(self) -> int:
        return len(self._scopes)

    async def take(self, ask: Ask) -> Decision:
        """See :class:`~router.accounts.counter.Counter`; it never raises."""
        now_ms = int(self._clock() * 1000)
        bucket = now_ms // self._bucket_ms
        scopes = [self._scope(part.scope, bucket) for part in ask.parts]
        waits = [scope.waits(part, ask.amounts, now_ms) for scope, part in zip(scopes, ask.parts, strict=True)]
        let_in = not any(wait.any for wait in waits)
        if let_in:
            for scope, part in zip(scopes, ask.parts, strict=True):
                scope.window.add(bucket, ask.amounts)
                scope.running += part.has_places
        self._forget(bucket)
        standings = (scope.window.standing(wait, now_ms) for scope, wait in zip(scopes, waits, strict=True))
        return Decision(let_in, bucket, tuple(standings))

    def correct(self, scopes: Sequence[str], bucket: int, tokens: int) -> None:
        """See :class:`~router.accounts.counter.Counter`."""
        for name in scopes:
            if (scope := self._scopes.get(name)) is not None:
                scope.window.correct(bucket, tokens)

    def leave(self, scopes: Sequence[str]) -> None:
        """See :class:`~router.accounts.counter.Counter`."""
        for name in scopes:
            self._scopes[name].running -= 1  # it is there as long as something runs

    async def close(self) -> None:
        """See :class:`~router.accounts.counter.Counter`."""

    def _scope(self, name: str, bucket: int) -> _Scope:
        scope = self._scopes.get(name)
        if scope is None:
            scope = self._scopes[name] = _Scope(self._bucket_ms)
        scope.asked_in = bucket
        scope.window.move(bucket)
        self._scopes.move_to_end(name)
        return scope

    def _forget(self, bucket: int) -> None:
        while self._scopes:
            name, oldest = next(iter(self._scopes.items()))
            too_many = self._most_scopes is not None and len(self._scopes) > self._most_scopes
            if oldest.asked_in + COUNTED > bucket and not too_many:
                return
            if oldest.running:
                self._scope(name, bucket)
            else:
                del self._scopes[name]


class _Scope:
    """What is counted in one scope."""

    __slots__ = ("asked_in", "running", "window")

    def __init__(self, bucket_ms: int) -> None:
        self.window = Window(bucket_ms)
        self.running = 0
        self.asked_in = 0

    def waits(self, part: Part, amounts: Amounts, now_ms: int) -> Waits:
        most = part.limits.concurrent
        full = most is not None and self.running >= most
        return Waits(*self.window.waits(part.limits, amounts, now_ms), place=int(full))
