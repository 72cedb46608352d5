"""Metrics that this process shows itself, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from metrics.base import Reading
from metrics.catalogue import Metric

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time for each series, as many again, which nobody reads

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PrometheusMetrics:
    """One registry of a process, without what the library would add about Python itself."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """See :class:`~metrics.base.Metrics`."""
        if metric.name not in self._counters:
            self._counters[metric.name] = Counter(metric.name, metric.help, metric.labels, registry=self._registry)
        self._counters[metric.name].labels(*labels).inc(amount)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """See :class:`~metrics.base.Metrics`."""
        if metric.name not in self._histograms:
            self._histograms[metric.name] = Histogram(
                metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self._registry
            )
        self._histograms[metric.name].labels(*labels).observe(value)

    def watch(self, metric: Metric, read: Reading) -> None:
        """See :class:`~metrics.base.Metrics`."""
        self._registry.register(_Watched(metric, read))

    def exposition(self) -> bytes:
        """Everything, as a scrape gets it."""
        return generate_latest(self._registry)


class _Watched(Collector):
    def __init__(self, metric: Metric, read: Reading) -> None:
        self._metric = metric
        self._read = read

    def collect(self) -> Iterator[Family]:
        metric = self._metric
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(metric.name, metric.help, labels=metric.labels)
        for labels, value in self._read().items():
            family.add_metric(labels, value)
        yield family
