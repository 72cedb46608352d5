"""The setting of traces."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from router.config import RouterConfig
from traces.target import checked_target, endpoint_of, is_installed, what_is_missing
from vlm.errors import ConfigError


@pytest.mark.parametrize(
    "value",
    ["off", "console", "otlp", "http://collector:4318", "https://otel.example.com", "http://[::1]:4318/v1/traces"],
)
def test_what_may_be_set(value: str) -> None:
    assert checked_target(value) == value
    assert RouterConfig.from_args({"traces": value}).traces == value


@pytest.mark.parametrize(
    "value",
    ["", "on", "collector:4318", "grpc://collector:4317", "http://", "http://user:secret@host", "http://host/?key=1",
     "http://host /", "http://host/\n", "http://" + "h" * 3000, 4318, True],
)  # fmt: skip
def test_what_may_not_be_set(value: object) -> None:
    with pytest.raises(ConfigError, match=r"traces must be"):
        RouterConfig.from_args({"traces": value})


def test_off_is_the_default_and_yaml_reads_it_as_false() -> None:
    assert RouterConfig().traces == RouterConfig.from_args({"traces": False}).traces == "off"


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("otlp", None),
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://gateway/otlp", "https://gateway/otlp/v1/traces"),
        ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
    ],
)
def test_where_spans_are_posted(target: str, url: str | None) -> None:
    assert endpoint_of(target) == url


def test_what_is_missing_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(sys.modules["traces.target"], "find_spec", absent)
    assert not is_installed("http://collector:4318")
    assert is_installed("off")
    assert "pip install 'gigarouter[traces]'" in what_is_missing("otlp")


def test_it_is_installed_where_tests_run() -> None:
    assert all(map(is_installed, ("off", "console", "otlp", "http://collector:4318")))
