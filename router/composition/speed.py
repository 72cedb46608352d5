"""How long the answers of each model take, as one router has seen them."""

from __future__ import annotations

from starlette.types import Scope

from router.asgi.metering import RequestRecord

_SHARE_OF_NEWEST = 0.2
"""Of the mean: some ten answers forget what was before."""


class Speeds:
    """The mean time of the last answers, by model, without what they waited for their turn.

    A :class:`~router.asgi.metering.Meter`, since it has to learn of every answer.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def seconds(self, model: str) -> float:
        """Seconds; 0 for a model that has not answered yet, so that it is tried."""
        return self._seconds.get(model, 0.0)

    def __call__(self, scope: Scope, record: RequestRecord) -> None:  # noqa: ARG002  the protocol has it
        """See :class:`~router.asgi.metering.Meter`. Only a served model has timings, so that the names are bounded."""
        if record.model is None or record.timings is None:
            return
        seconds = (record.timings.total_ms - record.timings.queue_ms) / 1000
        before = self._seconds.get(record.model, seconds)
        self._seconds[record.model] = before + _SHARE_OF_NEWEST * (seconds - before)
