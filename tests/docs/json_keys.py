"""What tests of the reference read in answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def keys_of(value: Any) -> Iterator[str]:
    """The keys of all objects within a JSON value."""
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)
