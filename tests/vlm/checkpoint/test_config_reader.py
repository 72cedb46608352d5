"""Values of a checkpoint's JSON are read with their types, and an error names the key that is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vlm.checkpoint.config_reader import ConfigReader
from vlm.errors import CheckpointError

Read = Callable[[ConfigReader], object]


def reader(**values: object) -> ConfigReader:
    return ConfigReader(values, "config.json")


def integer(config: ConfigReader) -> object:
    return config.integer("key")


def number(config: ConfigReader) -> object:
    return config.number("key")


def flag(config: ConfigReader) -> object:
    return config.flag("key", default=False)


def text(config: ConfigReader) -> object:
    return config.text("key")


def integers(config: ConfigReader) -> object:
    return config.integers("key")


def flags(config: ConfigReader) -> object:
    return config.flags("key")


def one_of(config: ConfigReader) -> object:
    return config.one_of("key", ("left", "right"), "left")


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (integer, -3, -3),
        (number, 2, 2.0),
        (number, 0.5, 0.5),
        (flag, True, True),
        (text, "", ""),
        (integers, [1, 0], (1, 0)),
        (flags, [True, False], (True, False)),
        (one_of, "right", "right"),
    ],
)
def test_a_value_of_the_right_type(read: Read, value: object, expected: object) -> None:
    found = read(reader(key=value))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("read", "values", "wanted"),
    [
        (integer, (1.0, True, "1", None), "a whole number"),
        (number, (True, "1", None), "a number"),
        (flag, (0, 1, "true", None), "true or false"),
        (text, (1, ["a"], None), "a text"),
        (integers, (1, [1.0], [True], ["1"], None), "a list of whole numbers"),
        (flags, (True, [0, 1], None), "a list of true and false"),
        (one_of, ("up", 1, None), "one of left, right"),
    ],
)
def test_a_value_of_another_type_is_named(read: Read, values: tuple[object, ...], wanted: str) -> None:
    for value in values:
        with pytest.raises(CheckpointError) as caught:
            read(reader(key=value))
        found = "is missing" if value is None else f"is {value!r}"
        assert caught.value.message == f"config.json: key must be {wanted}, but {found}."


def test_defaults_are_for_keys_that_are_absent() -> None:
    config = reader()
    assert (config.integer("key", 3), config.number("key", 0.5), config.flag("key", default=True)) == (3, 0.5, True)
    assert config.one_of("key", ("left", "right"), "right") == "right"
    for read in (integer, number, text, integers, flags):
        with pytest.raises(CheckpointError, match="but is missing"):
            read(config)


def test_an_error_names_the_section() -> None:
    config = reader(vision={"layers": "two"}, text=3)
    with pytest.raises(CheckpointError, match=r"^config\.json vision: layers must be a whole number, but is 'two'\.$"):
        config.section("vision").integer("layers")
    for key in ("text", "audio"):
        with pytest.raises(CheckpointError, match=rf"^config\.json has no object '{key}'\.$"):
            config.section(key)
