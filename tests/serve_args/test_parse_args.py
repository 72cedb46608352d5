"""One message for every kind of wrong setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from serve_args import parse_args
from vlm.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    max_batch: int = 8
    wait_s: float = 1.0


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1)
    models: tuple[str, ...] = ()
    prices: Mapping[Annotated[str, Field(min_length=1)], str] = Field(default_factory=dict)
    verbose: bool = False
    share: float = Field(default=1.0, gt=0, le=1)
    engine: Limits = Limits()

    @field_validator("name")
    @classmethod
    def _lower(cls, name: str) -> str:
        if name != name.lower():
            raise ValueError("must be in lower case")
        return name


def test_reads_lists_as_tuples_and_mappings_as_sections() -> None:
    read = parse_args(Example, {"name": "a", "models": ["b", "c"], "engine": {"max_batch": 2}})
    assert read == Example(name="a", models=("b", "c"), engine=Limits(max_batch=2))


def test_a_date_is_text_although_yaml_gives_an_object_for_it() -> None:
    assert parse_args(Example, {"name": date(2026, 11, 26)}).name == "2026-11-26"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "name is missing."),
        ({"name": 1}, "name must be text; in YAML, put it in quotes."),
        ({"name": ""}, "name must not be empty."),
        ({"name": "A"}, "name must be in lower case."),
        ({"name": "a", "models": "b"}, "models must be a list."),
        ({"name": "a", "models": ["b", 1]}, "models[1] must be text; in YAML, put it in quotes."),
        ({"name": "a", "prices": ["b"]}, "prices must be a mapping."),
        ({"name": "a", "prices": {"b": 1}}, "prices.b must be text; in YAML, put it in quotes."),
        ({"name": "a", "prices": {"": "1"}}, "the key '' of prices must not be empty."),
        ({"name": "a", "share": float("nan")}, "share must be a finite number."),
        ({"name": "a", "verbose": 1}, "verbose must be true or false."),
        ({"name": "a", "share": "1"}, "share must be a number."),
        ({"name": "a", "share": 0}, "share must be above 0.0."),
        ({"name": "a", "share": 2}, "share must be at most 1.0."),
        ({"name": "a", "engine": [1]}, "engine must be a mapping of settings."),
        ({"name": "a", "engine": {"max_batch": "8"}}, "engine.max_batch must be a whole number."),
        ({"name": "a", "engine": {"max_batch": True}}, "engine.max_batch must be a whole number."),
        ({"name": "a", "engine": {"max_batch": 8.0}}, "engine.max_batch must be a whole number."),
        (
            {"name": "a", "engine": {"max_bacth": 8}},
            "engine.max_bacth is not a known setting; did you mean engine.max_batch? "
            "Known keys of engine: max_batch, wait_s.",
        ),
        (
            {"name": "a", "max_batch": 8},
            "max_batch is not a known setting; write engine.max_batch. "
            "Known keys: name, models, prices, verbose, share, engine.",
        ),
        (
            {"name": "a", "zzz": 8},
            "zzz is not a known setting. Known keys: name, models, prices, verbose, share, engine.",
        ),
        ({"share": "1", "name": 1}, "name must be text; in YAML, put it in quotes. share must be a number."),
    ],
)
def test_a_wrong_setting_is_named_with_its_path(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_args(Example, args)
    assert caught.value.message == message


def test_the_error_carries_the_path_of_the_first_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_args(Example, {"name": "a", "engine": {"wait_s": "long"}})
    assert caught.value.param == "engine.wait_s"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nprices: {2026-11-26: '1'}", "args has a key that is not text; in YAML, put it in quotes."),
        ("name: a\nprices: &all {b: *all}", "args contains itself; remove the YAML alias that points back."),
    ],
)
def test_what_yaml_allows_and_json_does_not(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_args(Example, yaml.safe_load(text))
    assert caught.value.message == message


def test_args_that_are_not_a_mapping() -> None:
    args: Any = ["name"]
    with pytest.raises(ConfigError, match=r"^args must be a mapping of settings\.$"):
        parse_args(Example, args)
