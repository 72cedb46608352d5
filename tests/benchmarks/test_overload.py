"""The overload benchmark tells answers from refusals, and refusals by their time and header."""

from __future__ import annotations

from benchmarks.http.client import Answered
from benchmarks.http.load import Load
from benchmarks.overload import line


def answered(done: float, status: int = 200, *, retry_after: bool = False) -> Answered:
    return Answered(0, 0.0, done, done, status, b"", retry_after=retry_after)


def test_only_answers_are_good() -> None:
    load = Load([answered(0.5), answered(1.0), answered(2.0)], 0.0, 2.0, 1.0)
    assert line("load", load).split(maxsplit=1)[1] == "1.5 good/s, p50 1000, p95 2000, p99 2000 ms; client 0.50 cores"


def test_refusals_have_a_time_and_say_when_to_try_again() -> None:
    load = Load([answered(2.0), answered(0.1, 503, retry_after=True), answered(0.3, 503)], 0.0, 2.0, 0.0)
    assert "; 2 x 503 after p50 100, p99 300, at most 300 ms, 1 with Retry-After; " in line("load", load)
