"""Both counters against the slow one, step for step; what each of them must do besides is tested elsewhere."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.types import Limits
from router.accounts.counter import Amounts, Ask, Counter, Decision, Part
from router.accounts.memory_counter import MemoryCounter
from router.accounts.redis_counter import RedisCounter
from tests.router.accounts.slow_counter import COUNTS_MS, SlowCounter

SCOPES = ("a", "b", "c")


@dataclass
class Clock:
    """In the middle of a millisecond, so that it is the same one however it is computed."""

    ms: int = 1_000_000

    def __call__(self) -> float:
        return (self.ms + 0.5) / 1000


@dataclass(frozen=True)
class Pass:
    ms: int


@dataclass(frozen=True)
class Take:
    scopes: tuple[str, ...]
    limits: Limits
    amounts: Amounts


@dataclass(frozen=True)
class Correct:
    which: int
    tokens: int


@dataclass(frozen=True)
class Leave:
    which: int


Step = Pass | Take | Correct | Leave
limit = st.none() | st.integers(1, 8)
steps = st.lists(
    st.builds(Pass, st.integers(0, 2000) | st.integers(0, 70_000))
    | st.builds(
        Take,
        st.lists(st.sampled_from(SCOPES), min_size=1, max_size=2, unique=True).map(tuple),
        st.builds(Limits, limit, limit, limit, limit),
        st.builds(Amounts, st.integers(0, 2), st.integers(0, 3), st.integers(0, 9)),
    )
    | st.builds(Correct, st.integers(0, 5), st.integers(-9, 9))
    | st.builds(Leave, st.integers(0, 5)),
    max_size=30,
)


@dataclass
class Play:
    """Does the steps to a counter; scopes are called otherwise each time, as a Redis remembers them."""

    counter: Counter
    clock: Clock
    prefix: str
    decided: list[Decision] = field(default_factory=list)
    taken: list[tuple[Ask, int, int]] = field(default_factory=list)
    placed: list[Ask] = field(default_factory=list)

    async def __call__(self, steps: list[Step]) -> list[Decision]:
        for step in steps:
            match step:
                case Pass(ms):
                    self.clock.ms += ms
                case Take():
                    await self.take(step)
                case Correct(which, tokens) if self.taken:
                    ask, bucket, left = self.taken.pop(which % len(self.taken))
                    change = max(tokens, -left)
                    self.counter.correct([part.scope for part in ask.parts], bucket, change)
                    self.taken.append((ask, bucket, left + change))
                case Leave(which) if self.placed:
                    ask = self.placed.pop(which % len(self.placed))
                    self.counter.leave([part.scope for part in ask.parts])
        await self.counter.close()
        return self.decided

    async def take(self, step: Take) -> None:
        ask = Ask(tuple(Part(self.prefix + scope, step.limits) for scope in step.scopes), step.amounts)
        decision = await self.counter.take(ask)
        self.decided.append(decision)
        if decision.let_in:
            self.taken.append((ask, decision.bucket, step.amounts.tokens))
        if decision.let_in and step.limits.concurrent is not None:
            self.placed.append(ask)


def played(make: Callable[[Clock], Counter], steps: list[Step], prefix: str = "") -> list[Decision]:
    async def play() -> list[Decision]:
        clock = Clock()
        return await Play(make(clock), clock, prefix)(steps)

    return asyncio.run(play())


@given(steps)
def test_memory_decides_like_the_slow_one(steps: list[Step]) -> None:
    assert played(lambda clock: MemoryCounter(clock=clock), steps) == played(SlowCounter, steps)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_redis_decides_like_the_slow_one(redis_url: str, steps: list[Step]) -> None:
    def make(clock: Clock) -> RedisCounter:
        return RedisCounter(redis_url, lease_s=1e6, clock=clock)

    assert played(make, steps, secrets.token_hex(4)) == played(SlowCounter, steps)


@given(st.lists(st.integers(0, 5000), min_size=20, max_size=80))
def test_no_minute_has_more_than_the_limit(pauses: list[int]) -> None:
    """Whichever minute; and whatever is refused, the 61 seconds before were full."""
    clock, most = Clock(), 7
    counter, let_in = MemoryCounter(clock=clock), list[int]()
    for pause in pauses:
        clock.ms += pause
        ask = Ask((Part("a", Limits(requests=most)),), Amounts(1, 0, 0))
        if asyncio.run(counter.take(ask)).let_in:
            let_in.append(clock.ms)
        else:
            assert sum(clock.ms - at < COUNTS_MS for at in let_in) >= most
    assert all(sum(start <= at < start + 60_000 for at in let_in) <= most for start in let_in)


def test_memory_keeps_only_who_has_asked_in_the_last_minute() -> None:
    clock = Clock()
    counter = MemoryCounter(clock=clock)

    async def many() -> list[int]:
        kept = []
        for number in range(10_000):
            clock.ms += 100
            await counter.take(Ask((Part(f"key_{number}", Limits(requests=5)),), Amounts(1, 1, 1)))
            kept.append(len(counter))
        return kept

    kept = asyncio.run(many())
    assert kept[600] == 601
    assert max(kept) <= COUNTS_MS // 100


def test_memory_keeps_who_runs() -> None:
    clock = Clock()
    counter = MemoryCounter(clock=clock)
    ask = Ask((Part("runs", Limits(concurrent=1)),), Amounts(1, 0, 0))

    async def run() -> None:
        assert (await counter.take(ask)).let_in
        for number in range(5):
            clock.ms += 100_000
            await counter.take(Ask((Part(f"other_{number}", Limits(requests=1)),), Amounts(1, 0, 0)))
            assert len(counter) == 2
        assert not (await counter.take(ask)).let_in
        counter.leave(["runs"])
        assert (await counter.take(ask)).let_in

    asyncio.run(run())


def test_memory_of_one_scope_does_not_grow_with_what_is_taken() -> None:
    clock = Clock()
    counter = MemoryCounter(clock=clock)
    ask = Ask((Part("a", Limits(tokens=10**9)),), Amounts(1, 0, 1000))

    async def many() -> int:
        for _ in range(2_000):
            clock.ms += 100
            await counter.take(ask)
        return len(counter._scopes["a"].window._buckets)

    assert asyncio.run(many()) == COUNTS_MS // 1000


def test_of_strangers_the_oldest_are_forgotten() -> None:
    counter = MemoryCounter(most_scopes=3)

    async def many() -> list[bool]:
        asks = [Ask((Part(scope, Limits(requests=1)),), Amounts(1, 0, 0)) for scope in "abcdabcd"]
        return [(await counter.take(ask)).let_in for ask in asks]

    assert asyncio.run(many()) == [True] * 8
    assert len(counter) == 3
