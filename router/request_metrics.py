"""What the router measures: each request as it ends, and what it holds and tries again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from starlette.types import Scope

from metrics.base import Labels, Metrics
from metrics.catalogue import (
    DURATION,
    FIRST_TOKEN,
    GIVEN_UP,
    HELD_PLACES,
    IMAGES,
    PER_TOKEN,
    PREPARE_TIME,
    QUEUE_TIME,
    REQUESTS,
    RESUMED,
    RETRIES,
    TOKENS,
)
from router.asgi.errors import code_of
from router.asgi.metering import RequestRecord
from router.resilience.retry_policy import RetryStats
from vlm.errors import VlmError
from vlm.types import Timings, Usage

OTHER = "other"
"""The label for a model that is not known to be served: clients may write what they like."""

MAX_NAMES = 256
"""Of models and of errors each, so that the number of series is bounded whatever happens."""


class RequestMeter:
    """A :class:`~router.asgi.metering.Meter` that counts and times requests."""

    def __init__(self, metrics: Metrics, is_served: Callable[[str], bool]) -> None:
        """``is_served`` says whether a name is that of a deployed model."""
        self._metrics = metrics
        self._is_served = is_served
        self._models: set[str] = set()
        self._errors: set[str] = set()

    def __call__(self, scope: Scope, record: RequestRecord) -> None:  # noqa: ARG002  the protocol has it
        """See :class:`~router.asgi.metering.Meter`."""
        model = self.name_of(record)
        add, observe = self._metrics.add, self._metrics.observe
        add(REQUESTS, 1, model, record.outcome, self._error(record.error))
        if record.usage is None:
            return
        observe(DURATION, record.total_s, model)
        self._read(record.usage, record.images, model)
        if record.timings is not None:
            self._timed(record.timings, model)
        if record.streamed and record.first_chunk_s is not None:
            observe(FIRST_TOKEN, record.first_chunk_s, model)
            if record.per_token_s is not None:
                observe(PER_TOKEN, record.per_token_s, model)

    def name_of(self, record: RequestRecord) -> str:
        """The model's name if it is served, or was; else :data:`OTHER`."""
        model = record.model
        if model is None:
            return OTHER
        if model in self._models:
            return model
        served = record.outcome == "completed" or self._is_served(model)
        if not served or len(self._models) >= MAX_NAMES:
            return OTHER
        self._models.add(model)
        return model

    def _read(self, usage: Usage, images: int, model: str) -> None:
        counts = (("text", usage.text_tokens), ("image", usage.image_tokens), ("generated", usage.completion_tokens))
        for kind, count in counts:
            self._metrics.add(TOKENS, count, model, kind)
        if images:
            self._metrics.add(IMAGES, images, model)

    def _timed(self, timings: Timings, model: str) -> None:
        self._metrics.observe(QUEUE_TIME, timings.queue_ms / 1000, model)
        self._metrics.observe(PREPARE_TIME, timings.prepare_ms / 1000, model)

    def _error(self, error: VlmError | None) -> str:
        if error is None:
            return ""
        code = code_of(error)
        if code not in self._errors and len(self._errors) < MAX_NAMES:
            self._errors.add(code)
        return code if code in self._errors else OTHER


class Retrying(Protocol):
    """What tries requests again."""

    @property
    def stats(self) -> RetryStats:
        """Its counters."""
        ...


def watch_router(metrics: Metrics, held: Callable[[], Mapping[str, int]], retrying: Retrying | None) -> None:
    """Show what the router holds for each model, and what it has tried again, where something does that."""
    metrics.watch(HELD_PLACES, lambda: _by_model(held()))
    if retrying is not None:
        metrics.watch(RETRIES, lambda: _labelled(retrying.stats.retries.items()))
        metrics.watch(GIVEN_UP, lambda: _labelled(retrying.stats.given_up.items()))
        metrics.watch(RESUMED, lambda: _by_model(retrying.stats.resumed))


def _labelled(counts: Iterable[tuple[Labels, float]]) -> Mapping[Labels, float]:
    return dict(counts)


def _by_model(counts: Mapping[str, int]) -> Mapping[Labels, float]:
    return {(model,): count for model, count in counts.items()}
