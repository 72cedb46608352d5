"""The benchmark for a GPU goes through all of its parts on the CPU, so that the first GPU at hand measures at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.gpu.__main__ import PARTS, main
from benchmarks.gpu.agreement import _first_differences
from benchmarks.gpu.models import FOLDERS, MINIATURES
from tests.vlm.engine.test_compose import completion
from vlm.loading import families


def rows(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("job", ["ceilings", *(f"{part}:blip" for part in PARTS), "steps:moondream2"])
def test_every_part_runs_and_writes_rows(job: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run", "--job", job]) == 0
    written = rows(capfd.readouterr().out)
    assert written
    family = job.partition(":")[2]
    assert all(row["family"] == family for row in written if family)
    measured = [value for row in written for value in row.values() if isinstance(value, float)]
    assert all(value >= 0 for value in measured)


def test_decode_is_measured_greedy_and_with_beams(capfd: pytest.CaptureFixture[str]) -> None:
    main(["--dry-run", "--job", "steps:florence2"])
    decode = [row for row in rows(capfd.readouterr().out) if row["section"] == "decode"]
    assert {(row["rows"], row["beams"]) for row in decode} == {(1, 1), (2, 1), (1, 3), (2, 3)}
    assert all(row["step_ms"] > 0 and row["top"] for row in decode)


def test_a_job_that_takes_too_long_costs_its_own_rows_only(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run", "--families", "blip", "--job-seconds", "1"]) == 1
    written = rows(capfd.readouterr().out)
    assert written[0]["section"] == "machine"
    failures = {row["job"]: row["why"] for row in written if row["section"] == "failure"}
    assert failures.keys() >= {f"{part}:blip" for part in PARTS}
    assert all("longer than 1 s" in why for why in failures.values())


def test_without_a_gpu_it_says_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([]) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_every_family_has_a_miniature_to_compare_on() -> None:
    assert set(FOLDERS) == {name for name, _ in families()}
    assert all((MINIATURES / folder / "config.json").is_file() for folder in FOLDERS.values())


def test_answers_differ_first_at_a_token_or_where_the_shorter_one_ends() -> None:
    ids = (((1, 2, 3), (1, 2, 3)), ((1, 2, 3), (1, 9, 3)), ((1, 2, 3), (1, 2)), ((1, 2), (1, 2, 3)))
    answer = completion("a dog")
    pairs = [(replace(answer, token_ids=one), replace(answer, token_ids=other)) for one, other in ids]
    assert _first_differences(pairs) == [1, 2, 2]
