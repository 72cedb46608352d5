"""Metrics that leave by Ray: each node's agent shows those of all its processes, and Prometheus finds the nodes itself.

A call of Ray's costs two microseconds, so what is only read goes out every few seconds, counters by what they have
grown.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Mapping
from typing import Any

from metrics.base import Labels, Reading
from metrics.catalogue import Metric

logger = logging.getLogger(__name__)

EVERY_S = 5.0
"""Ray's agents are scraped every ten or fifteen seconds."""


class RayMetrics:
    """The metrics of a process that Ray runs."""

    def __init__(self, ray_metrics: Any = None, every_s: float = EVERY_S) -> None:
        """``ray_metrics`` is the module ``ray.util.metrics``, and a substitute in a test."""
        self._ray = ray_metrics or importlib.import_module("ray.util.metrics")
        self._every_s = every_s
        self._objects: dict[str, Any] = {}
        self._watched: list[tuple[Metric, Reading]] = []
        self._last: dict[tuple[str, Labels], float] = {}
        self._shown: dict[str, set[Labels]] = {}  # by the name of a gauge
        self._failing: set[str] = set()  # which have been logged
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """See :class:`~metrics.base.Metrics`."""
        if amount > 0:  # Ray refuses 0
            self._object(metric).inc(amount, _tags(metric, labels))

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """See :class:`~metrics.base.Metrics`."""
        self._object(metric).observe(value, _tags(metric, labels))

    def watch(self, metric: Metric, read: Reading) -> None:
        """See :class:`~metrics.base.Metrics`. The first call starts a thread that reads every few seconds."""
        with self._lock:
            self._watched.append((metric, read))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Read all that is watched, and send it on; what cannot be read now may be the next time."""
        with self._lock:
            for metric, read in self._watched:
                self._pass_on(metric, read)

    def stop(self) -> None:
        """Read no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self.flush()

    def _pass_on(self, metric: Metric, read: Reading) -> None:
        try:
            values = read()
            for labels, value in {**self._gone(metric, values), **values}.items():
                self._send(metric, labels, value)
            self._failing.discard(metric.name)
        except Exception:  # an alert that watches a figure of the past would be worse than a line in the log
            if metric.name not in self._failing:
                logger.exception("%s cannot be passed on", metric.name)
            self._failing.add(metric.name)

    def _gone(self, metric: Metric, values: Mapping[Labels, float]) -> Mapping[Labels, float]:
        """0 for what a gauge showed and no longer does, as of a deleted model: Ray would go on with its last value."""
        if metric.kind != "gauge":
            return {}
        before, self._shown[metric.name] = self._shown.get(metric.name, set()), set(values)
        return dict.fromkeys(before - values.keys(), 0.0)

    def _send(self, metric: Metric, labels: Labels, value: float) -> None:
        if metric.kind == "gauge":
            self._object(metric).set(value, _tags(metric, labels))
            return
        before = self._last.get((metric.name, labels), 0.0)
        self._last[metric.name, labels] = value
        self.add(metric, value - before, *labels)

    def _object(self, metric: Metric) -> Any:
        found = self._objects.get(metric.name)
        if found is None:
            options = {"description": metric.help, "tag_keys": metric.labels}
            match metric.kind:
                case "counter":
                    found = self._ray.Counter(metric.name, **options)
                case "gauge":
                    found = self._ray.Gauge(metric.name, **options)
                case "histogram":
                    found = self._ray.Histogram(metric.name, boundaries=list(metric.buckets), **options)
            self._objects[metric.name] = found
        return found


def _tags(metric: Metric, labels: Labels) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))
