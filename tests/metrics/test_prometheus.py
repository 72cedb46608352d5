"""What a scrape gets of a process that shows its metrics itself."""

from __future__ import annotations

from metrics.base import Labels
from metrics.catalogue import CATALOGUE, DURATION, HELD_PLACES, REQUESTS, RETRIES
from metrics.prometheus import PrometheusMetrics
from tests.metrics.exposed import samples

BLIP = {"model": "blip-large"}


def test_counts_times_and_what_is_watched() -> None:
    metrics = PrometheusMetrics()
    metrics.add(REQUESTS, 1, "blip-large", "completed", "")
    metrics.add(REQUESTS, 2, "blip-large", "completed", "")
    metrics.observe(DURATION, 0.02, "blip-large")
    held: dict[Labels, float] = {("blip-large",): 3.0}
    metrics.watch(HELD_PLACES, lambda: held)
    metrics.watch(RETRIES, lambda: {("blip-large", "lost"): 7})
    found = samples(metrics.exposition())
    assert found.value(REQUESTS.name, **BLIP, outcome="completed", error="") == 3
    assert found.value(f"{DURATION.name}_count", **BLIP) == 1
    assert found.value(f"{DURATION.name}_bucket", **BLIP, le="0.025") == 1
    assert found.value(f"{DURATION.name}_bucket", **BLIP, le="0.01") == 0
    assert found.value(HELD_PLACES.name, **BLIP) == 3
    assert found.value(RETRIES.name, **BLIP, reason="lost") == 7
    held.clear()
    assert found.value(HELD_PLACES.name, **BLIP) == 3
    assert samples(metrics.exposition()).value(HELD_PLACES.name, **BLIP) is None


def test_the_library_takes_every_metric() -> None:
    metrics = PrometheusMetrics()
    for one in CATALOGUE:
        labels = tuple("x" for _ in one.labels)
        match one.kind:
            case "counter":
                metrics.add(one, 1, *labels)
            case "histogram":
                metrics.observe(one, 1, *labels)
            case "gauge":
                metrics.watch(one, lambda labels=labels: {labels: 1.0})  # type: ignore[misc]
    names = samples(metrics.exposition()).names
    assert {one.name for one in CATALOGUE if one.kind != "histogram"} <= names
