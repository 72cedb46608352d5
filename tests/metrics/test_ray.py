"""What Ray gets of a process's metrics; a substitute stands in for it."""

from __future__ import annotations

from typing import Any

import pytest

from metrics.base import Labels
from metrics.catalogue import CATALOGUE, DURATION, HELD_PLACES, REQUESTS, RETRIES
from metrics.catalogue import ENGINE_RUNNING as RUNNING
from metrics.ray import RayMetrics

Call = tuple[str, str, float, tuple[str, ...]]


class Recorded:
    """In place of ``ray.util.metrics``."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.made: list[str] = []

    def _metric(self, name: str, description: str, tag_keys: tuple[str, ...], boundaries: Any = None) -> Any:
        self.made.append(name)
        assert description
        assert boundaries is None or all(one > 0 for one in boundaries)
        calls = self.calls

        def record(what: str) -> Any:
            def call(value: float, tags: dict[str, str]) -> None:
                assert set(tags) == set(tag_keys)
                calls.append((name, what, value, tuple(tags[key] for key in tag_keys)))

            return call

        return type("Metric", (), {what: staticmethod(record(what)) for what in ("inc", "set", "observe")})

    Counter = Gauge = Histogram = _metric


def test_counts_and_times_go_out_at_once_and_each_metric_is_made_once() -> None:
    ray = Recorded()
    metrics = RayMetrics(ray)
    metrics.add(REQUESTS, 1, "blip-large", "completed", "")
    metrics.add(REQUESTS, 1, "blip-large", "completed", "")
    metrics.observe(DURATION, 0.5, "blip-large")
    assert ray.calls == [
        (REQUESTS.name, "inc", 1, ("blip-large", "completed", "")),
        (REQUESTS.name, "inc", 1, ("blip-large", "completed", "")),
        (DURATION.name, "observe", 0.5, ("blip-large",)),
    ]
    assert ray.made == [REQUESTS.name, DURATION.name]


def test_nothing_is_counted_for_nothing() -> None:
    ray = Recorded()
    RayMetrics(ray).add(REQUESTS, 0, "blip-large", "completed", "")
    assert ray.calls == []


def test_what_is_watched_goes_out_as_a_value_or_as_what_a_counter_has_grown() -> None:
    ray = Recorded()
    metrics = RayMetrics(ray, every_s=3600)
    held: dict[Labels, float] = {("blip-large",): 3.0}
    retries: dict[Labels, float] = {("blip-large", "lost"): 2.0}
    metrics.watch(HELD_PLACES, lambda: held)
    metrics.watch(RETRIES, lambda: retries)
    metrics.flush()
    retries["blip-large", "lost"] = 5.0
    held["blip-large",] = 0.0
    metrics.flush()
    metrics.flush()
    metrics.stop()
    of = [(name, value) for name, _, value, _ in ray.calls]
    assert of == [
        (HELD_PLACES.name, 3), (RETRIES.name, 2),
        (HELD_PLACES.name, 0), (RETRIES.name, 3),
        (HELD_PLACES.name, 0),
    ]  # fmt: skip


def test_a_gauge_of_what_has_gone_is_0_once() -> None:
    ray = Recorded()
    metrics = RayMetrics(ray, every_s=3600)
    held: dict[Labels, float] = {("blip-large",): 3.0, ("deleted",): 2.0}
    metrics.watch(HELD_PLACES, lambda: held)
    metrics.flush()
    del held["deleted",]
    metrics.flush()
    metrics.flush()
    metrics.stop()
    assert [value for _, _, value, labels in ray.calls if labels == ("deleted",)] == [2, 0]
    assert [value for _, _, value, labels in ray.calls if labels == ("blip-large",)] == [3, 3, 3]


def test_one_that_cannot_be_read_stops_no_other_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    ray = Recorded()
    metrics = RayMetrics(ray, every_s=3600)
    held: dict[Labels, float] = {}

    def broken() -> dict[Labels, float]:
        return {("blip-large",): 1 / len(held)}

    metrics.watch(RUNNING, broken)
    metrics.watch(HELD_PLACES, lambda: {("blip-large",): 3.0})
    metrics.flush()
    metrics.flush()
    held["blip-large",] = 1.0
    metrics.flush()
    metrics.stop()
    assert [name for name, *_ in ray.calls] == [HELD_PLACES.name, HELD_PLACES.name, RUNNING.name, HELD_PLACES.name]
    assert [one.message for one in caplog.records] == [f"{RUNNING.name} cannot be passed on"]


def test_ray_takes_every_metric() -> None:
    """Ray's own classes, which need no cluster to be made."""
    metrics = RayMetrics()
    for one in CATALOGUE:
        metrics._object(one)
