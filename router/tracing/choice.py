"""Which requests are traced, and as a part of which trace. Pure Python."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from traces.context import Context, context_in


@dataclass(frozen=True, slots=True)
class Choice:
    """The rule.

    A caller's trace goes on here, so that its spans and ours are found together. Whether ours are recorded is drawn by
    us, and not from the caller's ids, which it could choose: a caller can have fewer of its requests recorded than the
    share says, but not more.

    Attributes:
        share: Part of the requests that are recorded, from 0 to 1.
        trust_caller: Whether a caller that records its own part has ours recorded too, whatever the share.
        uniform: Draws a number from 0 to 1, without 1.
    """

    share: float
    trust_caller: bool
    uniform: Callable[[], float] = random.random

    def begin(self, values: Sequence[str]) -> tuple[Context, Context | None]:
        """The context of a request's first span here, and the caller's span that it is a part of.

        Args:
            values: Those of the header ``traceparent``.
        """
        caller = context_in(values)
        if caller is None:
            return Context.new(sampled=self._drawn()), None
        sampled = caller.sampled and (self.trust_caller or self._drawn())
        return Context.new(caller.trace_id, sampled=sampled), caller

    def _drawn(self) -> bool:
        return self.uniform() < self.share
