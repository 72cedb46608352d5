"""docs/traces.md names the spans and attributes that there are, and the settings with their defaults."""

from __future__ import annotations

import re
from pathlib import Path

from deployments import replica_traces
from deployments.replica_traces import MAX_TARGETS
from router.config import RouterConfig
from router.endpoints import MODEL_PATHS
from router.tracing import names
from traces.exporter import STOP_S
from traces.span import MAX_EVENTS
from traces.target import CONSOLE, OFF, SIGNAL, STANDARD, checked_target

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/traces.md").read_text("utf-8")
SECURITY = (ROOT / "docs/security.md").read_text("utf-8").partition("## Traces\n")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| `([^`]+)`[^|]*\| (router|replica) \|[^|]*\|([^|]*)\|$", PAGE, re.MULTILINE)
ATTRIBUTE = re.compile(r"(?:http|gen_ai|error|gigarouter)\.[a-z_.]+")


def constants(module: object) -> set[str]:
    return {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}


def test_every_span_is_in_the_table() -> None:
    spans = {value for module in (names, replica_traces) for value in constants(module) if "." not in value}
    events = {names.RETRY, names.RESUMED, names.FIRST}
    ours = {name for name, _, _ in ROWS} - {f"POST {MODEL_PATHS[0]}"}
    assert ours == spans - events - {OFF}
    assert len(ROWS) == len(ours) + 1
    assert all(f"`{event}`" in PAGE for event in events)


def test_every_attribute_is_in_the_table() -> None:
    for where, module in (("router", names), ("replica", replica_traces)):
        known = {value for value in constants(module) if ATTRIBUTE.fullmatch(value)}
        said = {name for _, place, said in ROWS if place == where for name in ATTRIBUTE.findall(said)}
        assert said == known, where


def test_the_drawing_has_every_span() -> None:
    drawing = PAGE.partition("```\nPOST")[2].partition("```")[0]
    lines = f"POST{drawing}".splitlines()
    assert {line[:30].partition("(")[0].strip() for line in lines} == {name for name, _, _ in ROWS}


def test_the_targets_are_those_that_may_be_set() -> None:
    named = re.findall(r"^\| `([^`]+)` \| (?:nowhere|to |where)", PAGE, re.MULTILINE)
    assert {OFF, CONSOLE, STANDARD} < set(named)
    assert [checked_target(one) for one in named] == named
    assert SIGNAL in PAGE


def test_the_settings_have_their_defaults() -> None:
    config = RouterConfig()
    assert "off by default" in PAGE
    assert config.traces == OFF
    assert f"| `trace_share` | {config.trace_share:.0f} |" in PAGE
    assert f"| `trust_traceparent` | {str(config.trust_traceparent).lower()} |" in PAGE


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"{MAX_EVENTS} events in a span" in SECURITY
    assert (STOP_S, "three seconds" in SECURITY, "three seconds" in PAGE) == (3.0, True, True)
    assert (MAX_TARGETS, "at most four targets" in SECURITY) == (4, True)
