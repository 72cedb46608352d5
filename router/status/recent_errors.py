"""Which errors were answered, how often, and when last. Keeps codes and names of models, nothing that clients wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from starlette.types import Scope

from router.asgi.errors import code_of, row_of
from router.asgi.metering import RequestRecord

MAX_MODELS = 256
"""Names that are kept, since some may be of models that were deleted. Errors of further ones count for no model."""


@dataclass(frozen=True, slots=True)
class SeenError:
    """One code as often as it was answered; ``last_at`` is Unix time."""

    code: str
    status: int
    count: int
    last_at: float


class RecentErrors:
    """A :class:`~router.asgi.metering.Meter` that remembers errors, by model."""

    def __init__(self, is_served: Callable[[str], bool], clock: Callable[[], float] = time.time) -> None:
        """``is_served`` says whether a name is that of a deployed model; ``clock`` is Unix time."""
        self._is_served = is_served
        self._clock = clock
        self._seen: dict[str | None, dict[tuple[str, int], SeenError]] = {}

    def __call__(self, scope: Scope, record: RequestRecord) -> None:  # noqa: ARG002  # a Meter's signature
        """See :class:`~router.asgi.metering.Meter`."""
        error = record.error
        if error is None:
            return
        key = code_of(error), row_of(error).status
        seen = self._seen.setdefault(self._name(record.model), {})
        before = seen.get(key)
        seen[key] = SeenError(*key, 1 + (before.count if before else 0), self._clock())

    def of(self, model: str | None) -> Sequence[SeenError]:
        """The errors of a model, or of requests that were for none; the latest first."""
        return sorted(self._seen.get(model, {}).values(), key=lambda one: -one.last_at)

    def forget_others(self, models: Iterable[str]) -> None:
        """Drop what is kept of models other than these, which are all that there are."""
        for name in self._seen.keys() - {None, *models}:
            del self._seen[name]

    def _name(self, model: str | None) -> str | None:
        """The model, if it is one that is served: clients may write any name."""
        if model is None or model in self._seen:
            return model
        return model if self._is_served(model) and len(self._seen) < MAX_MODELS else None
