"""Guesses at misspelt names."""

from __future__ import annotations

import pytest

from router.suggest import did_you_mean

KNOWN = ("labels", "length", "max_objects")


@pytest.mark.parametrize(
    ("name", "guess"),
    [("lables", "labels"), ("lenght", "length"), ("maxobjects", "max_objects"), ("score", None), ("", None)],
)
def test_a_close_name_is_suggested_and_no_other(name: str, guess: str | None) -> None:
    assert did_you_mean(name, KNOWN) == ("" if guess is None else f" Did you mean {guess!r}?")
