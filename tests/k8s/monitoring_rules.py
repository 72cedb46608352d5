"""Objects of the Prometheus operator, read strictly, since no schema of them comes with Kubernetes.

The keys are those of its API that this project has a use for; another one is a fault, because the API server would drop
what the operator does not know, and with it a port that is to be scraped or an alert.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from typing import Any

from tests.k8s.objects import Object, Objects, name_of, of_kind

DURATION = re.compile(r"(\d+(ms|s|m|h|d|w|y))+")
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
VARIABLE = re.compile(r"\{\{(.*?)\}\}")
READABLE = re.compile(r"\s*(\$value( \| humanize\w*)?|\$labels\.[a-zA-Z_][a-zA-Z0-9_]*)\s*")
SEVERITIES = {"critical", "warning"}

MONITOR = {"selector", "podMetricsEndpoints", "podTargetLabels", "namespaceSelector", "jobLabel", "sampleLimit"}
ENDPOINT = {"port", "path", "scheme", "interval", "scrapeTimeout", "honorLabels", "relabelings", "metricRelabelings"}
GROUP = {"name", "interval", "rules", "limit"}
ALERT = {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
RECORD = {"record", "expr", "labels"}


def monitors(objects: Objects) -> Iterator[str]:
    """What is scraped, where and how often."""
    for one in of_kind(objects, "PodMonitor"):
        place, spec = name_of(one), one["spec"]
        yield from _unknown(place, spec, MONITOR)
        if not spec.get("podMetricsEndpoints"):
            yield f"{place}: scrapes nothing"
        for number, endpoint in enumerate(spec.get("podMetricsEndpoints") or []):
            there = f"{place}: podMetricsEndpoints.{number}"
            yield from _unknown(there, endpoint, ENDPOINT)
            if not isinstance(endpoint.get("port"), str):
                yield f"{there}: port is not the name of a port"
            for key in ("interval", "scrapeTimeout"):
                yield from _duration(there, endpoint, key)


def rules(objects: Objects) -> Iterator[str]:
    """Alerts and series: each name once, and an alert says how grave it is and what it means."""
    for one in of_kind(objects, "PrometheusRule"):
        yield from _unknown(name_of(one), one["spec"], {"groups"})
        names = [group.get("name") for group in one["spec"].get("groups") or []]
        if len(names) != len(set(names)) or not all(names):
            yield f"{name_of(one)}: a group has no name of its own"
        for group in one["spec"].get("groups") or []:
            yield from _of_group(one, group)


def _of_group(one: Object, group: Mapping[str, Any]) -> Iterator[str]:
    place = f"{name_of(one)}: {group.get('name')}"
    yield from _unknown(place, group, GROUP)
    yield from _duration(place, group, "interval")
    for rule in group.get("rules") or []:
        there = f"{place}: {rule.get('alert') or rule.get('record')}"
        yield from _unknown(there, rule, ALERT if "alert" in rule else RECORD)
        if not str(rule.get("expr") or "").strip():
            yield f"{there}: has no expression"
        elif not _closed(str(rule["expr"])):
            yield f"{there}: a bracket of its expression is not closed"
        if "alert" in rule:
            yield from _of_alert(there, rule)


def _of_alert(place: str, rule: Mapping[str, Any]) -> Iterator[str]:
    if not NAME.fullmatch(str(rule["alert"])):
        yield f"{place}: is no name of an alert"
    for key in ("for", "keep_firing_for"):
        yield from _duration(place, rule, key)
    if (rule.get("labels") or {}).get("severity") not in SEVERITIES:
        yield f"{place}: severity is none of {', '.join(sorted(SEVERITIES))}"
    texts = rule.get("annotations") or {}
    if not texts.get("summary"):
        yield f"{place}: has no summary"
    for variable in (found for text in texts.values() for found in VARIABLE.findall(text)):
        if not READABLE.fullmatch(variable):
            yield f"{place}: {{{{{variable}}}}} is no variable of an alert"


def _unknown(place: str, found: Mapping[str, Any], known: Set[str]) -> Iterator[str]:
    for key in sorted(found.keys() - known):
        yield f"{place}: unknown key {key}"


def _duration(place: str, found: Mapping[str, Any], key: str) -> Iterator[str]:
    if key in found and not DURATION.fullmatch(str(found[key])):
        yield f"{place}: {key} {found[key]!r} is no duration"


def _closed(expression: str) -> bool:
    """Whether each bracket outside of strings has its counterpart."""
    opened: list[str] = []
    for sign in re.sub(r'"[^"]*"', "", expression):
        if sign in "([{":
            opened.append(sign)
        elif sign in ")]}" and (not opened or opened.pop() != {")": "(", "]": "[", "}": "{"}[sign]):
            return False
    return not opened
