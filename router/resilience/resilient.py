"""A backend whose requests outlive the replicas of the backend behind it.

Decides what an error means for a request, and logs it. Knows no HTTP and no Ray; the deadline of a request is kept
outside, by whoever closes the generator.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from router.backends.base import Backend, Before
from router.resilience.attempts import Attempts
from router.resilience.repetition import NotRepeatableError, Repetition
from router.resilience.retry_budget import RetryBudget
from router.resilience.retry_policy import GivenUp, RetryPolicy, RetryStats, Trouble
from traces import current
from vlm.errors import LostTooOften, VlmError
from vlm.route import Route
from vlm.types import Chunk, Request

logger = logging.getLogger(__name__)

GONE: frozenset[Trouble] = frozenset(("lost", "closed"))
"""After these, a replica takes no more requests, of whomever."""

SEED_BITS = 63
"""As many as a client's own seed may have without a sign."""


class ResilientBackend(Before):
    """Tries requests again that have lost their replica, or found it closed or full.

    Before the first chunk, the client notices nothing but the time. A stream of which it has a part is generated from
    its beginning, without the part that has been sent, if it turns out to be the same.
    """

    def __init__(
        self,
        backend: Backend,
        policy: RetryPolicy = RetryPolicy(),
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """``uniform`` draws a number from 0 to 1, for the pauses. Times are those of the event loop."""
        super().__init__(backend)
        self._policy = policy
        self._uniform = uniform
        self._budgets: dict[str, _Budgets] = {}
        self._retries: Counter[tuple[str, Trouble]] = Counter()
        self._given_up: Counter[tuple[str, GivenUp]] = Counter()
        self._resumed: Counter[str] = Counter()

    @property
    def stats(self) -> RetryStats:
        """The counters as of now."""
        return RetryStats(dict(self._retries), dict(self._resumed), dict(self._given_up))

    async def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See :class:`~router.backends.base.Backend`.

        Raises:
            LostTooOften: Several replicas ended while they worked on the request.
            VlmError: As the backend behind. For a stream that cannot go on, what has cut it.
        """
        answer = _Answer(model, self._policy)
        request = replace(repeatable(request), route=answer.route)
        while True:
            try:
                async with aclosing(self._backend.generate(model, request)) as chunks:
                    async for chunk in chunks:
                        if (rest := self._rest_of(chunk, answer)) is not None:
                            yield rest
                        if chunk.completion is not None:
                            return
            except NotRepeatableError:
                assert answer.cut is not None, "nothing is compared before a stream was cut"
                raise self._ended(answer, "not repeatable", answer.cut) from None
            except VlmError as error:
                pause_s = self._pause_after(error, answer)
            else:
                return  # without a last chunk, which is for the caller to judge
            await asyncio.sleep(pause_s)

    def _rest_of(self, chunk: Chunk, answer: _Answer) -> Chunk | None:
        """What of the chunk the client does not have. Raises NotRepeatableError."""
        if not answer.counted:
            self._count(answer)
        repetition = answer.repetition
        was_behind = repetition.behind
        rest = repetition.rest_of(chunk)
        if was_behind and not repetition.behind:
            self._resumed[answer.model] += 1
            fields = {"model": answer.model, "attempt": answer.attempts.number}
            logger.warning("%(model)r goes on with a stream in attempt %(attempt)d", fields, extra=fields)
            current.note("stream resumed", attempt=answer.attempts.number)
        return rest

    def _pause_after(self, error: VlmError, answer: _Answer) -> float:
        """For how long to wait before another attempt. Raises what the request ends with if there is none."""
        attempts = answer.attempts
        trouble = attempts.trouble(error)
        if trouble is None:
            raise error if attempts.number == 1 else self._ended(answer, "failed", error)
        reason = attempts.end(trouble, self._count(answer).of(trouble), _now())
        if reason is not None:
            raise self._ended(answer, reason, error)
        pause_s = attempts.next(self._uniform())
        self._retries[answer.model, trouble] += 1
        answer.route.gone = trouble in GONE
        answer.begin_again(error)
        fields = {"model": answer.model, "attempt": attempts.number, "reason": trouble}
        text = f"%(model)r tries a request again in {pause_s:.2f} s (attempt %(attempt)d): %(reason)s"
        logger.warning(text, fields, extra=fields)
        current.note("retry", reason=trouble, attempt=attempts.number)
        return pause_s

    def _count(self, answer: _Answer) -> _Budgets:
        """Count the request, once, now that its model is known to exist; returns the budgets of the model."""
        if answer.model not in self._budgets:
            self._budgets[answer.model] = _Budgets(self._policy)
        budgets = self._budgets[answer.model]
        if not answer.counted:
            answer.counted = True
            budgets.note_request(_now())
        return budgets

    def _ended(self, answer: _Answer, reason: GivenUp, error: VlmError) -> VlmError:
        """The error with which a request ends after all attempts."""
        self._given_up[answer.model, reason] += 1
        number, kind = answer.attempts.number, type(error).__name__
        fields = {"model": answer.model, "attempt": number, "reason": reason, "error": kind}
        text = "%(model)r gives a request up (attempt %(attempt)d): %(reason)s, %(error)s"
        logger.warning(text, fields, extra=fields)
        if reason == "lost too often":
            return LostTooOften(
                f"The model {answer.model!r} lost {answer.attempts.losses} processes while they worked on this "
                "request, so it is not tried again: the request itself may be the reason."
            )
        return answer.cut or error


class _Budgets:
    """Those of one model. Callers who ask for more than there is room for are not to use up what lost requests need."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._refused = RetryBudget(policy.share, policy.floor, policy.window_s)
        self._others = RetryBudget(policy.share, policy.floor, policy.window_s)

    def note_request(self, now: float) -> None:
        """A request has come at ``now``."""
        self._refused.note_request(now)
        self._others.note_request(now)

    def of(self, trouble: Trouble) -> RetryBudget:
        """The budget for what has ended an attempt."""
        return self._refused if trouble == "full" else self._others


class _Answer:
    """What is kept of one request while it is answered."""

    def __init__(self, model: str, policy: RetryPolicy) -> None:
        self.model = model
        self.attempts = Attempts(policy)
        self.repetition = Repetition()
        self.route = Route()
        self.counted = False
        self.cut: VlmError | None = None
        """What the client would have got in the middle of its stream."""

    def begin_again(self, error: VlmError) -> None:
        """Another attempt begins, because of ``error``."""
        if self.cut is None and self.repetition.started:
            self.cut = error.with_traceback(None)  # its frames would keep this object alive, and be kept by it
        self.repetition.begin_again()


def repeatable(request: Request) -> Request:
    """The same request; if it is to be streamed, with a seed of its own where it may draw its tokens and has none.

    Whether it draws may be up to the model's defaults. A greedy answer does not use the seed.
    """
    sampling = request.sampling
    if not request.stream or sampling.seed is not None or sampling.temperature == 0:
        return request
    return replace(request, sampling=replace(sampling, seed=secrets.randbits(SEED_BITS)))


def _now() -> float:
    return asyncio.get_running_loop().time()
