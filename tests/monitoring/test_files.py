"""The dashboard and the alert rules name only metrics and labels that exist, and the page tells of every alert."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from metrics.catalogue import CATALOGUE, Metric
from router.openapi.error_codes import CASES
from router.resilience.retry_policy import GivenUp, Trouble

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/monitoring.md").read_text("utf-8")
DASHBOARD: Any = json.loads((ROOT / "monitoring/grafana/gigarouter.json").read_text("utf-8"))
RULES: Any = yaml.safe_load((ROOT / "monitoring/alerts.yaml").read_text("utf-8"))
ALERTS: list[Any] = [rule for group in RULES["groups"] for rule in group["rules"]]

NAME = re.compile(r"gigarouter_\w+")
SELECTED = re.compile(r"(gigarouter_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
LE = "le"
"""The label of a histogram's buckets."""


def panels() -> Iterator[Any]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> list[str]:
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    asked = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    return [*shown, *asked, *(alert["expr"] for alert in ALERTS)]


def samples_of(metric: Metric) -> set[str]:
    """The names under which Prometheus has a metric."""
    parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    return {metric.name + part for part in parts}


EXIST = {name: metric for metric in CATALOGUE for name in samples_of(metric)}


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_exists_with_its_labels(expression: str) -> None:
    assert NAME.findall(expression)
    for name, matchers in SELECTED.findall(expression):
        assert name in EXIST
        used = {label for label, _ in MATCHER.findall(matchers)}
        assert used <= {*EXIST[name].labels}, name
    grouped = re.findall(r"by \(([^)]*)\)", expression)
    known = {label for name in NAME.findall(expression) for label in (*EXIST[name].labels, LE)}
    assert {label.strip() for labels in grouped for label in labels.split(",")} <= known


@pytest.mark.parametrize("expression", expressions())
def test_brackets_are_balanced(expression: str) -> None:
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


def test_rates_are_of_counters_and_gauges_are_not_rated() -> None:
    for expression in expressions():
        for name in re.findall(r"(?:rate|increase)\((?:ray_|\$\{prefix\})(gigarouter_\w+)", expression):
            assert EXIST[name].kind != "gauge", expression
        bare = re.sub(r"(?:rate|increase)\([^)]*\)", "", expression)
        assert all(EXIST[name].kind == "gauge" for name in NAME.findall(bare)) or "label_values" in expression, bare


def test_the_dashboard_shows_every_metric_that_is_counted() -> None:
    shown = {EXIST[name].name for expression in expressions() for name in NAME.findall(expression)}
    assert {metric.name for metric in CATALOGUE} == shown


def test_alerts_name_errors_and_reasons_that_exist() -> None:
    codes = {case.code for case in CASES} | {"server_error"}
    reasons = {*get_args(Trouble), *get_args(GivenUp)}
    for alert in ALERTS:
        for label, value in MATCHER.findall(alert["expr"]):
            known = codes if label == "error" else reasons
            assert {*value.split("|")} <= known, alert["alert"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_means(alert: Any) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert "{{ $labels.model }}" in alert["annotations"]["summary"]
    assert alert["annotations"]["runbook"] == f"docs/monitoring.md#{alert['alert'].lower()}"
    assert f"\n### {alert['alert']}\n" in PAGE
    assert all(name.startswith("ray_") for name in re.findall(r"\w*gigarouter_\w+", alert["expr"]))


def test_the_page_tells_of_no_alert_and_no_metric_that_is_not_there() -> None:
    assert set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)) == {alert["alert"] for alert in ALERTS}
    assert set(NAME.findall(PAGE)) <= {metric.name for metric in CATALOGUE}


def test_panels_do_not_overlap_and_have_names() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
