"""A counter that keeps everything that was ever taken and adds it up each time: slow, and easily seen to be right."""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.accounts.counter import Amounts, Ask, Decision, Part, Standing, Waits

COUNTS_MS = 61_000
"""What was taken counts in the second in which it was, and in the sixty that follow."""


@dataclass
class Event:
    """Something that was taken in a scope."""

    scope: str
    second: int
    amounts: list[int]


class SlowCounter:
    """Counts in seconds, by a clock in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.events: list[Event] = []
        self.running: Multiset[str] = Multiset()

    @property
    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    async def take(self, ask: Ask) -> Decision:
        waits = [self.waits(part, ask.amounts) for part in ask.parts]
        let_in = all(wait == Waits(0, 0, 0, 0) for wait in waits)
        second = self.now_ms // 1000
        for part in ask.parts if let_in else ():
            self.events.append(Event(part.scope, second, as_list(ask.amounts)))
            self.running[part.scope] += part.limits.concurrent is not None
        standings = (self.standing(part.scope, wait) for part, wait in zip(ask.parts, waits, strict=True))
        return Decision(let_in, second, tuple(standings))

    def correct(self, scopes: Sequence[str], bucket: int, tokens: int) -> None:
        for scope in scopes:
            event = next((one for one in self.counted(scope, self.now_ms) if one.second == bucket), None)
            if event is not None:
                event.amounts[2] += tokens

    def leave(self, scopes: Sequence[str]) -> None:
        self.running.subtract(scopes)

    async def close(self) -> None:
        """Nothing to do."""

    def counted(self, scope: str, at_ms: int) -> list[Event]:
        return [event for event in self.events if event.scope == scope and event.second * 1000 + COUNTS_MS > at_ms]

    def used(self, scope: str, at_ms: int) -> list[int]:
        return [sum(event.amounts[kind] for event in self.counted(scope, at_ms)) for kind in range(3)]

    def waits(self, part: Part, amounts: Amounts) -> Waits:
        limits = (part.limits.requests, part.limits.images, part.limits.tokens)
        waits = [
            self.wait(part.scope, kind, limit, amount)
            for kind, (limit, amount) in enumerate(zip(limits, as_list(amounts), strict=True))
        ]
        most = part.limits.concurrent
        return Waits(waits[0], waits[1], waits[2], int(most is not None and self.running[part.scope] >= most))

    def wait(self, scope: str, kind: int, limit: int | None, amount: int) -> int:
        """Looks at every moment at which a second leaves the window; what never fits waits for a whole one."""
        now = self.now_ms
        if limit is None:
            return 0
        moments = [now, *((now // 1000 + ahead) * 1000 for ahead in range(1, 62))]
        fitting = (moment for moment in moments if self.used(scope, moment)[kind] + amount <= limit)
        return next(fitting, now + COUNTS_MS) - now

    def standing(self, scope: str, waits: Waits) -> Standing:
        now = self.now_ms
        counted = self.counted(scope, now)
        by_second = {
            second: [sum(one.amounts[kind] for one in counted if one.second == second) for kind in range(3)]
            for second in {one.second for one in counted}
        }
        empty_in = [
            max((second * 1000 + COUNTS_MS - now for second, sums in by_second.items() if sums[kind]), default=0)
            for kind in range(3)
        ]
        return Standing(Amounts(*self.used(scope, now)), Amounts(*empty_in), waits)


def as_list(amounts: Amounts) -> list[int]:
    return [amounts.requests, amounts.images, amounts.tokens]
