"""Whether a request that had trouble is tried again, and after which pause. Pure Python: it waits for nothing."""

from __future__ import annotations

from router.resilience.retry_budget import RetryBudget
from router.resilience.retry_policy import GivenUp, RetryPolicy, Trouble
from vlm.errors import DeploymentFailed, ModelNotReady, Overloaded, VlmError


class Attempts:
    """The attempts at one request.

    Attributes:
        number: Of the present attempt, from 1.
        losses: How many processes or devices ended while they worked on the request.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.number = 1
        self.losses = 0
        self._policy = policy
        self._refusals = 0
        self._began: float | None = None

    def trouble(self, error: VlmError) -> Trouble | None:
        """What ``error`` means for the request; None if no other attempt would fare better.

        A model that is not ready is worth waiting for only after it had accepted the request, or had let it wait: what
        comes to it meanwhile is better told at once.
        """
        if error.lost:
            return "lost"
        if isinstance(error, Overloaded):
            return "full"
        if error.retryable:
            return "closed"
        waits = isinstance(error, ModelNotReady) and not isinstance(error, DeploymentFailed)
        return "not ready" if waits and self._began is not None else None

    def end(self, trouble: Trouble, budget: RetryBudget, now: float) -> GivenUp | None:
        """Why there is no other attempt; None if there is one, which is then taken from ``budget``.

        Args:
            trouble: What has ended the present attempt.
            budget: That of the model.
            now: In seconds on the caller's clock.
        """
        self._began = now if self._began is None else self._began
        self.losses += trouble == "lost"
        self._refusals += trouble == "full"
        if self.losses >= self._policy.max_losses:
            return "lost too often"
        if self._refusals > self._policy.max_refusals:
            return "refused too often"
        if now + self._longest_pause_s - self._began > self._policy.patience_s:
            return "patience"
        if trouble != "not ready" and not budget.take(now):  # an attempt that found no replica was no call to one
            return "budget"
        return None

    def next(self, uniform: float) -> float:
        """Begin another attempt; returns the pause before it in seconds.

        Args:
            uniform: A random number from 0 to 1.
        """
        pause_s = self._longest_pause_s * (1 + uniform) / 2
        self.number += 1
        return pause_s

    @property
    def _longest_pause_s(self) -> float:
        policy = self._policy
        return min(policy.longest_pause_s, policy.first_pause_s * 2.0 ** min(self.number - 1, 32))
