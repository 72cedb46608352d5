"""Reads typed values from a checkpoint's JSON; an error names the key that is wrong. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

from vlm.errors import CheckpointError

Choice = TypeVar("Choice", bound=str)


class ConfigReader:
    """A JSON object of a checkpoint, read key by key with its type checked."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        """``where`` names the file and object in errors (``"config.json text_config"``)."""
        self._values = values
        self._where = where

    def section(self, key: str) -> ConfigReader:
        """The object under ``key``."""
        value = self._values.get(key)
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{self._where} has no object {key!r}.")
        return ConfigReader(value, f"{self._where} {key}")

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._values.get(key, default)
        if not _is_integer(value):
            raise self._wrong(key, "a whole number", value)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self._values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(key, "a number", value)
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def text(self, key: str) -> str:
        """A string."""
        value = self._values.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text", value)
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self._values.get(key)
        if not isinstance(value, list) or not all(map(_is_integer, value)):
            raise self._wrong(key, "a list of whole numbers", value)
        return tuple(value)

    def flags(self, key: str) -> tuple[bool, ...]:
        """A list of true and false."""
        value = self._values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, bool) for item in value):
            raise self._wrong(key, "a list of true and false", value)
        return tuple(value)

    def one_of(self, key: str, choices: Sequence[Choice], default: Choice) -> Choice:
        """One of a few names."""
        value = self._values.get(key, default)
        for choice in choices:
            if value == choice:
                return choice
        raise self._wrong(key, f"one of {', '.join(choices)}", value)

    def _wrong(self, key: str, wanted: str, value: object) -> CheckpointError:
        found = "is missing" if value is None else f"is {value!r}"
        return CheckpointError(f"{self._where}: {key} must be {wanted}, but {found}.")


def _is_integer(value: object) -> TypeGuard[int]:
    """Whether JSON has a whole number here; Python would take true and false for 1 and 0."""
    return isinstance(value, int) and not isinstance(value, bool)
