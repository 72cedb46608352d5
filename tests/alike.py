"""Compares answers as JSON: equal to the letter, apart from the last digits of their scores and confidences.

Scores are products of probabilities, whose rounding depends on what else is in the batch. They are published with four
significant digits, of which the last may differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

_IN_TEXT = re.compile(r'(?:(?<="score":)|(?<="confidence":))[-+.0-9e]+')


def unscored(value: Any) -> Any:
    """The same JSON with 0 for every score that is a number, also within strings of JSON (``message.content``)."""
    if isinstance(value, dict):
        return {key: 0 if _is_score(key, inner) else unscored(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [unscored(inner) for inner in value]
    return _IN_TEXT.sub("0", value) if isinstance(value, str) else value


def scores(value: Any) -> Iterator[float]:
    """The scores that :func:`unscored` replaces, in the order of the JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [inner] if _is_score(key, inner) else scores(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scores(inner)
    elif isinstance(value, str):
        yield from map(float, _IN_TEXT.findall(value))


def assert_alike(first: Any, second: Any) -> None:
    """Assert that both are equal to the letter, and their scores equal up to rounding."""
    assert unscored(first) == unscored(second)
    assert list(scores(first)) == pytest.approx(list(scores(second)), rel=2e-3)


def _is_score(key: str, value: Any) -> bool:
    return key in ("score", "confidence") and value is not None
