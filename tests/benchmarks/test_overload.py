"""The overload benchmark tells answers from refusals, and refusals by their time and header."""

from __future__ import annotations

import pytest

from benchmarks.http.client import Answered
from benchmarks.http.load import Load
from benchmarks.overload import line, outstanding, shared_out


def answered(done: float, status: int = 200, *, retry_after: bool = False) -> Answered:
    return Answered(0, 0.0, done, done, status, b"", retry_after=retry_after)


def test_only_answers_are_good() -> None:
    load = Load([answered(0.5), answered(1.0), answered(2.0)], 0.0, 2.0, 1.0)
    assert (
        line("load", load).split(maxsplit=1)[1]
        == "1.5 good/s, p50 1000, p95 2000, p99 2000 ms; at most 3 under way; cores: client 0.50"
    )


def test_refusals_have_a_time_and_say_when_to_try_again() -> None:
    load = Load([answered(2.0), answered(0.1, 503, retry_after=True), answered(0.3, 503)], 0.0, 2.0, 0.0)
    assert "; 2 x 503 after p50 100, p99 300, at most 300 ms, 1 with Retry-After; " in line("load", load)


def test_those_under_way_are_counted_where_most_are() -> None:
    answers = [Answered(0, asked, done, done, 200, b"") for asked, done in ((0.0, 2.0), (1.0, 4.0), (2.0, 3.0))]
    assert outstanding(answers) == 2, "one ends as another begins"


def test_a_client_that_is_kept_apart_has_the_last_core() -> None:
    assert shared_out({0, 1, 2}, apart=True) == ({2}, {0, 1})
    assert shared_out({0, 1}, apart=False) == ({0, 1}, {0, 1})
    with pytest.raises(SystemExit, match="two cores"):
        shared_out({0}, apart=True)
