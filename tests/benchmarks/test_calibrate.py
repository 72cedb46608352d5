"""The calibration and the cascade of the miniatures, on few questions; and what the committed files say."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.calibrate import Measured, calibration_json, main
from benchmarks.cascade import ROOT, Result, prices_of, table
from benchmarks.cascade import main as cascade
from benchmarks.curves import Judged
from benchmarks.labelled import TASKS, Outcome, is_right, judge, questions
from vlm.calibration import Curve, read_calibration
from vlm.calibration_files import load_calibration
from vlm.types import Box, Detection

MINIATURES = ROOT / "miniatures"
NAMES = ("blip-large", "florence-2-base", "kosmos-2", "moondream-2")


@pytest.mark.parametrize("name", NAMES)
def test_confidences_of_the_miniatures_are_nearer_to_the_truth_than_scores(name: str) -> None:
    tasks = load_calibration(MINIATURES / name / "calibration.json").tasks
    assert tasks
    for task, calibrated in tasks.items():
        curve = calibrated.judged
        assert curve is not None, task
        assert curve.error_after < min(0.05, curve.error_before), task
        assert curve.count > 500, task


def test_questions_are_the_same_for_the_same_seed_and_others_for_others() -> None:
    first, again, other = (questions(TASKS["detect"], 6, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_an_answer_is_right_if_all_is_found_and_nothing_else() -> None:
    asked = next(one for one in questions(TASKS["ground"], 2, 1) if one.shapes)
    good = [Detection("box", box=shape.box) for shape in asked.shapes]
    bad = Detection("box", box=Box(0, 0, 0.001, 0.001))
    assert is_right(asked, None, good)
    assert not is_right(asked, None, [*good, bad])
    assert not is_right(asked, None, [])
    assert [*judge(asked, [bad, *good, *good])] == [False, True, False]


def test_a_text_is_right_but_for_case_and_the_full_stop() -> None:
    asked = replace(questions(TASKS["query"], 2, 1)[0], text="a red square")
    assert is_right(asked, " A red square.", [])
    assert not is_right(asked, "a blue square", [])


def test_what_is_written_can_be_read() -> None:
    rng = random.Random(1)
    knots = tuple((number / 10_000_000, number / 100) for number in range(1, 20))
    outcomes = [Outcome(rng.random() < 0.8, (Judged(rng.random(), right=True),)) for _ in range(50)]
    measured = Measured(Curve(knots, 50, 0.1, 0.01), False, outcomes, (), ())
    read = read_calibration(calibration_json({"detect": measured}, {"other": {"detect": measured}}), "file")
    assert read.tasks["detect"].judged is not None
    assert [name for name, _ in read.tasks["detect"].judged.thresholds] == ["other"]


def test_a_checkpoint_is_calibrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "blip-large"
    shutil.copytree(MINIATURES / folder.name, folder)
    (folder / "calibration.json").unlink()
    assert main([str(folder), "--questions", "40"]) == 0
    assert "blip-large caption: 40 answers" in capsys.readouterr().out
    curve = load_calibration(folder / "calibration.json").tasks["caption"].answers
    assert curve is not None
    assert (curve.count, curve.threshold) == (40, None)


def test_the_cascade_is_held_against_the_best_model() -> None:
    prices = prices_of(ROOT / "serve_config.yaml")
    assert set(prices) == set(NAMES)
    alone = [Result("cheap", 0.5, 0.1), Result("dear", 0.8, 1.0)]
    first, second, good = table("ground", [*alone, Result("cheap > dear", 0.8, 0.5, 0.4)]).splitlines()
    assert "goal" not in first + second
    assert good.split()[-3:] == ["50.0%", "40.0%", "goal"]


def test_a_cascade_of_miniatures_passes_on_what_is_doubtful(capsys: pytest.CaptureFixture[str]) -> None:
    assert cascade(["--tasks", "ground", "--questions", "24"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    passed_on = {" ".join(line[1:4]): float(line[8].rstrip("%")) for line in lines if ">" in line}
    assert set(passed_on) == {"florence-2-base > kosmos-2", "florence-2-base > moondream-2"}
    assert all(0 < share < 100 for share in passed_on.values())
