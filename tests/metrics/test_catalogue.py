"""The names and labels of all metrics, held to Prometheus' rules and to each other."""

from __future__ import annotations

import re

import pytest

import metrics.catalogue
from metrics.catalogue import CATALOGUE, Metric


def test_every_metric_of_the_module_is_in_the_catalogue_once() -> None:
    declared = [one for one in vars(metrics.catalogue).values() if isinstance(one, Metric)]
    assert sorted(one.name for one in CATALOGUE) == sorted(one.name for one in declared)
    assert len({one.name for one in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda one: one.name)
def test_names_are_as_prometheus_wants_them(metric: Metric) -> None:
    assert re.fullmatch(r"gigarouter_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.kind != "histogram" or metric.name.endswith("_seconds")
    assert metric.help.endswith(".")
    assert metric.labels[0] == "model"
