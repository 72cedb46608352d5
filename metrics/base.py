"""What a process does with its metrics, whichever way they leave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from metrics.catalogue import Metric

Labels = tuple[str, ...]
Reading = Callable[[], Mapping[Labels, float]]
"""The values of a metric at this moment, by the values of its labels. Any thread may call it."""


class Metrics(Protocol):
    """Where a process's metrics go."""

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Count ``amount`` more."""
        ...

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put a value into a histogram."""
        ...

    def watch(self, metric: Metric, read: Reading) -> None:
        """Take a gauge, or a counter that something else counts, from ``read`` whenever it is wanted."""
        ...


class NoMetrics:
    """Keeps nothing."""

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """See :class:`Metrics`."""

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """See :class:`Metrics`."""

    def watch(self, metric: Metric, read: Reading) -> None:
        """See :class:`Metrics`."""
