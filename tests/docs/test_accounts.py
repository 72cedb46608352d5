"""docs/accounts.md says what the code does: settings, variables, what a key has, what is stored, and for how long."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from accounts import environment
from accounts.keys import CHARS_OF_HINT, new_secret
from accounts.schema import METADATA
from accounts.types import SCOPES, KeySpec, Limits
from deployments.local.serve_config import ACCOUNTS
from router.config import RouterConfig

PAGE = (Path(__file__).parents[2] / "docs/accounts.md").read_text("utf-8")
SETTINGS = (
    *ACCOUNTS, "allow_without_keys", "accounts_patience_s", "free_credit", "key_limits", "failed_keys_per_minute",
    "stored_answer_s", "max_stored_answer_bytes", "prices", "price_version", "batch_price_percent",
)  # fmt: skip
STORED = {"answers": "stored answers", "price_lists": "price lists", "usage_days": "usage by day"}
"""How the page calls a table, where it does not call it by its name."""


def section(title: str) -> str:
    """The part of the page below a heading."""
    return PAGE[PAGE.index(f"\n## {title}\n") :].split("\n## ")[1]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_described(name: str) -> None:
    assert name in RouterConfig.model_fields
    assert f"`{name}`" in section("Settings")


@pytest.mark.parametrize("name", [one for one in vars(environment) if one.isupper()])
def test_every_variable_is_described(name: str) -> None:
    assert f"`{getattr(environment, name)}`" in section("Settings")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(KeySpec) if field.name != "name"])
def test_all_that_a_key_has_is_described(name: str) -> None:
    assert f"`{name}`" in section("Keys")


def test_the_scopes_are_those_of_the_code() -> None:
    (row,) = re.findall(r"^\| `scopes` \| (.*) \|$", section("Keys"), re.MULTILINE)
    assert {*re.findall(r"`(\w+)`", row)} == {*SCOPES}


@pytest.mark.parametrize("name", METADATA.tables)
def test_every_table_is_listed_with_how_long_it_is_kept(name: str) -> None:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", section("What is stored"), re.MULTILINE)
    assert any(STORED.get(name, name) in row for row in rows)


def test_the_numbers_are_those_of_the_code() -> None:
    config = RouterConfig()
    assert f"`failed_keys_per_minute` ({config.failed_keys_per_minute})" in PAGE
    assert f"`accounts_patience_s` ({config.accounts_patience_s:.0f} s)" in PAGE
    assert f"`max_stored_answer_bytes` ({config.max_stored_answer_bytes >> 20} MiB)" in PAGE
    assert config.stored_answer_s == 86_400
    assert "`stored_answer_s` (a day)" in PAGE
    assert {field.name for field in dataclasses.fields(Limits)} == {"requests", "images", "tokens", "concurrent"}


def test_the_form_of_a_secret_is_that_of_the_code() -> None:
    assert f"`gr-` and {len(new_secret()) - len('gr-')} characters" in PAGE
    assert CHARS_OF_HINT == 7
    assert "its first seven characters" in PAGE
