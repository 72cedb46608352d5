"""Requests are counted by how they ended, and those apart whose connection ended with a process that was killed."""

from __future__ import annotations

import json
from collections import Counter

from benchmarks.asking import Outcome
from benchmarks.chaos.load import Record
from benchmarks.chaos.report import Event, Phase, Run, counts_of, logged, table
from benchmarks.http.report import Machine

KILLED = Event("router killed", 5.0, 2.0, ends_connections=True)


def record(
    outcome: Outcome = "answered", began: float = 1.0, *, ended: float | None = None, code: str = "",
    status: int | None = 200,
) -> Record:  # fmt: skip
    by_router = outcome in ("answered", "differs") or bool(code)
    return Record("m", True, began, began + 1 if ended is None else ended, outcome, code or "x", status, by_router)


def test_each_end_is_counted_once() -> None:
    records = [
        record(),
        record(ended=3.0),
        record("refused", code="overloaded", status=503),
        record("refused", code="engine_failure", status=500),
        record("refused", status=500),
        record("unanswered", status=None),
        record("cut"),
        record("cut", code="engine_failure"),
        record("differs"),
    ]
    counts = counts_of(records, [])
    assert (counts.requests, counts.answered, counts.lost, counts.died) == (9, 2, 7, 0)
    assert (dict(counts.refused), counts.failed, counts.cut, counts.differ) == ({"overloaded": 1}, 3, 2, 1)
    assert (counts.p50_ms, counts.longest_ms) == (1000.0, 2000.0)


def test_only_what_was_under_way_and_nobody_answered_has_died_with_its_router() -> None:
    other = Event("model killed", 8.0, 2.0)
    records = [
        record("cut", 4.5),
        record("unanswered", 4.9, status=None),
        record("refused", 4.9, status=500),
        record("cut", 4.5, code="engine_failure"),
        record("cut", 6.0),
        record("cut", 7.5),
        record("answered", 4.5),
    ]
    counts = counts_of(records, [KILLED, other])
    assert (counts.died, counts.cut, counts.answered, counts.lost) == (3, 3, 1, 6)


def test_what_routers_logged_is_counted_by_its_kind() -> None:
    log = (
        "'m' tries a request again in 0.05 s (attempt 2): lost\n'm' tries a request again in 0.09 s (attempt 3): full\n"
        "'m' goes on with a stream in attempt 2\n"
    )
    assert logged(log) == Counter({"retried: lost": 1, "retried: full": 1, "resumed": 1})


def run(*records: Record, wrong: tuple[str, ...] = ()) -> Run:
    phase = Phase("first", 0.0, 10.0, [KILLED], Counter({"retried: lost": 2, "resumed": 1}), list(wrong))
    machine = Machine("2026-11-27", "cpu", 2, 8.0, "3.11", {}, (0.0, 0.0))
    return Run(machine, {"rate": 6}, [phase, Phase("second", 20.0, 30.0)], records)


def test_a_run_is_whole_if_all_was_answered_and_nothing_else_was_wrong() -> None:
    assert run(record(), record(began=21.0)).is_whole()
    assert not run(record(), record("cut")).is_whole()
    assert not run(record(), wrong=("'m' has other processes",)).is_whole()


def test_the_table_has_a_row_for_each_phase_and_the_json_all_that_was_lost() -> None:
    found = run(record(), record("cut", 4.5), record(began=21.0))
    _, _, first, second = table(found)
    assert first == ("| first | 10 | 2 | 2 | 0 | 0 | 0 | 0 | 1 | 2 | 1 | 1000 | 1000 | 1000 | 2.0 (router killed) |")
    assert second.startswith("| second | 10 | 1 | 1 | 0 |")
    phases = json.loads(found.to_json())["phases"]
    assert [[one["outcome"] for one in phase["not_answered"]] for phase in phases] == [["cut"], []]
