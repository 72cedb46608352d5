"""Counts limits in a Redis or Valkey that several routers share, exactly over all of them.

All that waits is sent as one call of a script: each request costs one round trip at most, and under load many share
one. The script runs with nothing in between, by that server's clock. While a call is on its way the next ones gather,
so that what this process says arrives in the order in which it said it.

How many requests run is told as a number of this process, and not as one more or one less: so what was lost on the way
is mended by the next call, and all of a process that has died is forgotten at once, when its lease ends.

It needs one server (or a name that leads to the one that writes), since a call touches keys of several scopes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
from collections import Counter as Multiset
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from accounts.errors import AccountsUnavailable
from accounts.types import Limits
from router.accounts.counter import BUCKETS, COUNTED, Amounts, Ask, Decision, Standing, Waits

logger = logging.getLogger(__name__)

PREFIX = "gigarouter:limits:"
LEASE_S = 15.0
RENEWED = 3
"""Times that a lease is renewed before it would end."""
GATHERING_S = 0.02
"""How long what needs no answer waits for company: a place that was left is free in the other routers after this."""
PAUSE_S = 0.5
"""Between two tries to reach a server that does not answer, while no request waits for it."""
TIMEOUT_S = 1.0
MOST_TAKES = 200
"""In one call: it takes the server less than 10 ms, in which it does nothing else."""

_FAILURES = (RedisError, OSError, TimeoutError)
_NO_LIMIT = -1
_Take = tuple[list[int], tuple[int, int, int], list[list[int]]]
_SCRIPT = files(__package__).joinpath("redis_counter.lua").read_text("utf-8")


class RedisCounter:
    """A :class:`~router.accounts.counter.Counter` for several processes. It belongs to one event loop."""

    def __init__(
        self,
        url: str,
        *,
        window_s: float = 60.0,
        lease_s: float = LEASE_S,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Count at ``url``; nothing is sent before something is asked.

        Args:
            url: ``redis://`` or ``rediss://``. It may hold a password, and is never part of a message.
            window_s: Length of a minute.
            lease_s: After this a process that does not say so any more runs nothing.
            timeout_s: Longest time that an answer may take.
            clock: For tests, in place of the server's: seconds.
        """
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0)
        )
        self._script = self._redis.register_script(_SCRIPT)
        self._lease_s = lease_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._fixed = (COUNTED, round(window_s * 1000 / BUCKETS), round(lease_s * 1000), secrets.token_hex(8))
        self._waiting: list[_Waiting] = []
        self._corrections: list[tuple[str, int, int]] = []
        self._running: Multiset[str] = Multiset()
        self._changed: set[str] = set()  # scopes in which another number runs than the server was told
        self._woken = asyncio.Event()
        self._due_at = math.inf  # when what waits for company is sent
        self._renewed_at = -math.inf
        self._worker: asyncio.Task[None] | None = None
        self._answers = True

    async def take(self, ask: Ask) -> Decision:
        """See :class:`~router.accounts.counter.Counter`."""
        waiting = _Waiting(ask, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await waiting.decided
        except (TimeoutError, asyncio.CancelledError) as ended:
            if waiting.is_let_in:  # it was decided in the very moment in which nobody waited any more
                self._undo(ask, waiting.decided.result().bucket)
            if isinstance(ended, TimeoutError):
                raise _unavailable() from None
            raise

    def correct(self, scopes: Sequence[str], bucket: int, tokens: int) -> None:
        """See :class:`~router.accounts.counter.Counter`."""
        self._corrections += [(scope, bucket, tokens) for scope in scopes]
        self._wake_in(GATHERING_S)

    def leave(self, scopes: Sequence[str]) -> None:
        """See :class:`~router.accounts.counter.Counter`."""
        self._running.subtract(scopes)
        self._changed.update(scopes)
        self._wake_in(GATHERING_S)

    async def close(self) -> None:
        """See :class:`~router.accounts.counter.Counter`. What was left and corrected is told before."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
            await self._do(self._next_batch())
        await self._redis.aclose()

    def _wake_in(self, seconds: float) -> None:
        self._due_at = min(self._due_at, _now() + (seconds if self._answers else PAUSE_S))
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._gather()
            batch = self._next_batch()
            if batch.keys:
                await self._do(batch)

    async def _do(self, batch: _Batch) -> None:
        try:
            decisions = await self._call(batch)
        except _FAILURES as error:
            self._failed(batch, error)
        else:
            self._succeeded(batch, decisions)

    async def _gather(self) -> None:
        """Return when something has to be sent: requests at once, all else after a moment, leases in time."""
        while not self._waiting and (left_s := min(self._due_at, self._renewal_at) - _now()) > 0:
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._woken.wait()

    @property
    def _renewal_at(self) -> float:
        return self._renewed_at + self._lease_s / RENEWED

    def _next_batch(self) -> _Batch:
        """All that waits. A request that is asked now is not among those that run, as the script counts it itself."""
        batch, self._due_at = _Batch(), math.inf
        if _now() >= self._renewal_at:
            self._renewed_at = _now()
            self._changed.update(self._running)
        for scope in self._changed:
            batch.running.append((batch.key(scope), self._running[scope]))
            if not self._running[scope]:
                del self._running[scope]
        batch.changed, self._changed = self._changed, set()
        batch.corrections = [(batch.key(scope), bucket, tokens) for scope, bucket, tokens in self._corrections]
        self._corrections = []
        waiting, self._waiting = self._waiting[:MOST_TAKES], self._waiting[MOST_TAKES:]
        for one in waiting:
            if not one.decided.done():
                batch.add(one)
        return batch

    async def _call(self, batch: _Batch) -> Any:
        """The script's decisions."""
        now = "" if self._clock is None else int(self._clock() * 1000)
        said = await self._script([PREFIX + key for key in batch.keys], [*self._fixed, now, batch.operations()])
        return json.loads(said)

    def _succeeded(self, batch: _Batch, decisions: Any) -> None:
        self._answers = self._told(answers=True)
        for waiting, said in zip(batch.waiting, decisions, strict=True):
            decision = _decision(said)
            if decision.let_in:
                self._running.update(_placed(waiting.ask))
            if not waiting.decided.done():
                waiting.decided.set_result(decision)
            elif decision.let_in:
                self._undo(waiting.ask, decision.bucket)

    def _failed(self, batch: _Batch, error: Exception) -> None:
        """Whether the server has done it is unknown. So corrections, which could be counted twice, are not repeated."""
        self._answers = self._told(answers=False, why=type(error).__name__)
        self._changed |= batch.changed
        for waiting in batch.waiting:
            self._changed.update(_placed(waiting.ask))
            if not waiting.decided.done():
                waiting.decided.set_exception(_unavailable())
        if self._changed:
            self._wake_in(PAUSE_S)

    def _undo(self, ask: Ask, bucket: int) -> None:
        """Nobody is there any more for whom it was taken."""
        self.leave(_placed(ask))
        self.correct([part.scope for part in ask.parts], bucket, -ask.amounts.tokens)

    def _told(self, *, answers: bool, why: str = "") -> bool:
        if answers != self._answers:
            logger.warning("limits: Redis %s", "answers again" if answers else f"does not answer ({why})")
        return answers


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that waits for its decision."""

    ask: Ask
    decided: asyncio.Future[Decision]

    @property
    def is_let_in(self) -> bool:
        """Whether it was let in; False as long as that is not known."""
        known = self.decided.done() and not self.decided.cancelled() and self.decided.exception() is None
        return known and self.decided.result().let_in


@dataclass(slots=True)
class _Batch:
    """What one call of the script does; scopes are named by their number, which begins at 1."""

    keys: dict[str, int] = field(default_factory=dict)
    running: list[tuple[int, int]] = field(default_factory=list)
    corrections: list[tuple[int, int, int]] = field(default_factory=list)
    takes: list[_Take] = field(default_factory=list)
    waiting: list[_Waiting] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)

    def key(self, scope: str) -> int:
        """The number of a scope."""
        return self.keys.setdefault(scope, len(self.keys) + 1)

    def add(self, waiting: _Waiting) -> None:
        """Decide this request too."""
        ask = waiting.ask
        keys = [self.key(part.scope) for part in ask.parts]
        amounts = (ask.amounts.requests, ask.amounts.images, ask.amounts.tokens)
        self.takes.append((keys, amounts, [_limits(part.limits) for part in ask.parts]))
        self.waiting.append(waiting)

    def operations(self) -> str:
        """What the script reads."""
        return json.dumps({"running": self.running, "corrections": self.corrections, "takes": self.takes})


def _now() -> float:
    return asyncio.get_running_loop().time()


def _limits(limits: Limits) -> list[int]:
    stated = (limits.requests, limits.images, limits.tokens, limits.concurrent)
    return [_NO_LIMIT if limit is None else limit for limit in stated]


def _placed(ask: Ask) -> list[str]:
    return [part.scope for part in ask.parts if part.has_places]


def _decision(said: Any) -> Decision:
    let_in, bucket, standings = said
    return Decision(bool(let_in), bucket, tuple(Standing(Amounts(*u), Amounts(*e), Waits(*w)) for u, e, w in standings))


def _unavailable() -> AccountsUnavailable:
    return AccountsUnavailable("The limits of keys cannot be counted at the moment; try again.")
