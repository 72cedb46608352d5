"""The benchmark of how replicas are chosen, simulated."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.affinity.__main__ import main
from benchmarks.affinity.real import features_bytes
from benchmarks.affinity.simulated import HIT_S, MISS_S, Plan, Replica, simulate
from benchmarks.affinity.traffic import QUESTIONS, talks, zipf


def test_few_images_are_asked_about_often() -> None:
    drawn = Counter(islice(zipf(1000, 1), 20_000))
    assert drawn[0] > 5 * drawn[9] > 0
    assert len(drawn) > 800
    assert list(islice(zipf(1000, 1), 10)) == list(islice(zipf(1000, 1), 10))


def test_a_talk_asks_about_its_image_and_never_again() -> None:
    drawn = Counter(islice(talks(1, 1), 20_000))
    assert max(drawn.values()) == QUESTIONS


def test_a_replica_answers_in_order_and_keeps_the_images_that_were_asked_about_last() -> None:
    replica = Replica(2)
    assert replica.take(1, 0.0) == (False, MISS_S)
    assert replica.take(1, 0.0) == (True, MISS_S + HIT_S)
    assert replica.waiting(MISS_S) == 1
    assert [replica.take(image, 9.0)[0] for image in (2, 3, 1, 3)] == [False, False, False, True]


def test_four_replicas_chosen_by_image_hit_more_often_than_one_and_four_of_serve_no_more() -> None:
    one = simulate(Plan(1, 100, 6000, 30.0, by_image=True), zipf(2000, 1))
    ours, serves = (simulate(Plan(4, 100, 2000, 30.0, by_image), zipf(2000, 1)) for by_image in (True, False))
    assert abs(serves.hit_rate - one.hit_rate) < 0.05
    assert ours.hit_rate > one.hit_rate + 0.1
    assert ours.imbalance < 1.5


def test_talks_hit_as_often_with_eight_replicas_as_with_one_only_if_chosen_by_image() -> None:
    one = simulate(Plan(1, 100, 4000, 30.0, by_image=True), talks(1, 1))
    ours, serves = (simulate(Plan(8, 100, 1000, 30.0, by_image), talks(8, 1)) for by_image in (True, False))
    assert ours.hit_rate > 0.95 * one.hit_rate
    assert serves.hit_rate < 0.5 * one.hit_rate


def test_the_table_and_the_json_hold_the_same_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    assert main(["--replicas", "1", "2", "--requests", "50", "--json", str(file)]) == 0
    results = json.loads(file.read_text("utf-8"))
    assert [(one["replicas"], one["by_image"]) for one in results] == [(1, True), (2, False), (2, True)]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(results)
    assert all(f"{one['hit_rate']:.3f}" in line for one, line in zip(results, lines[2:], strict=True))


def test_the_real_mode_knows_the_size_of_an_encoded_image() -> None:
    assert features_bytes() == 65 * 128 * 4
