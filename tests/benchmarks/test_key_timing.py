"""The timing of refusals: the kinds of keys that are sent, and what is made of their times."""

from __future__ import annotations

import random

import pytest

from accounts.keys import looks_like_key, new_secret
from benchmarks.key_timing import KINDS, RIGHT, SHARED, WRONG, _guess, compared, main


def test_guesses_are_keys_that_share_what_they_are_to_share() -> None:
    right = new_secret()
    for kind in KINDS:
        guesses = {_guess(right, kind) for _ in range(200)}
        assert len(guesses) == 200
        assert all(looks_like_key(guess) for guess in guesses)
        shared = [guess[: 3 + SHARED] == right[: 3 + SHARED] for guess in guesses]
        assert set(shared) == {kind == RIGHT}
    assert all(_guess(right, WRONG)[3] != right[3] for _ in range(200))


@pytest.mark.parametrize(("later_us", "tells"), [(0.0, False), (1.0, True)])
def test_a_difference_is_found(later_us: float, tells: bool) -> None:
    noise = random.Random(1)
    times = {
        RIGHT: [noise.gauss(10 + later_us, 1) for _ in range(2000)],
        WRONG: [noise.gauss(10, 1) for _ in range(2000)],
    }
    found = compared("noise", times)
    assert found.tells is tells
    assert ("DIFFER" in str(found)) is tells
    assert found.difference[0] < later_us < found.difference[1]


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tries", "20"])  # too few to tell anything
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "asked for in the database", "in memory", "character by character"
    ]  # fmt: skip
