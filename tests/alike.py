"""Comparing answers as JSON to the letter, all but their scores.

Scores are products of probabilities, which differ by rounding with what else is in the batch. They are published with
four significant digits, so that the last one may be another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

_WRITTEN = re.compile(r'(?<="score":)[-+.0-9e]+')


def unscored(value: Any) -> Any:
    """The same JSON with 0 for every score, also of those in strings of JSON (``message.content``); null stays."""
    if isinstance(value, dict):
        return {key: 0 if _is_score(key, inner) else unscored(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [unscored(inner) for inner in value]
    return _WRITTEN.sub("0", value) if isinstance(value, str) else value


def scores(value: Any) -> Iterator[float]:
    """Those scores, in the order of the JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [inner] if _is_score(key, inner) else scores(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scores(inner)
    elif isinstance(value, str):
        yield from map(float, _WRITTEN.findall(value))


def assert_alike(first: Any, second: Any) -> None:
    """Equal to the letter, and the scores as near as rounding lets them be."""
    assert unscored(first) == unscored(second)
    assert list(scores(first)) == pytest.approx(list(scores(second)), rel=2e-3)


def _is_score(key: str, value: Any) -> bool:
    return key == "score" and value is not None
