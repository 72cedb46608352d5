"""Curves from scores to confidences: what they say, where they are found, and which files are refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.images import plain
from vlm.calibration import MAX_BYTES, MAX_KNOTS, Calibration, Curve, TaskCalibration, read_calibration
from vlm.calibration_files import find_calibration, published_name
from vlm.engine.engine import Engine
from vlm.errors import CheckpointError
from vlm.loading import info, load
from vlm.model_info import CalibratedTask
from vlm.types import Request, Sampling, Task

MINIATURES = Path(__file__).parents[2] / "miniatures"
CURVE = {"curve": [[0.1, 0.2], [0.5, 0.8]], "count": 100, "error_before": 0.3, "error_after": 0.02}
GOOD = {
    "version": 1,
    "date": "2026-11-27",
    "tasks": {
        "detect": {"objects": {**CURVE, "threshold": 0.7, "thresholds": {"other": 0.6}}},
        "query": {"answers": CURVE},
    },
}


def test_a_curve_is_straight_between_its_knots_and_flat_beyond_them() -> None:
    curve = Curve(((0.1, 0.2), (0.5, 0.8)), 100, 0.0, 0.0)
    assert [curve.at(score) for score in (0.0, 0.1, 0.3, 0.5, 1.0)] == pytest.approx([0.2, 0.2, 0.5, 0.8, 0.8])


scores = st.lists(st.floats(0, 1), min_size=1, max_size=20, unique=True).map(sorted)


@given(scores, st.lists(st.floats(0, 1), min_size=20, max_size=20).map(sorted), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_less_likely_right(knots: list[float], shares: list[float], a: float, b: float) -> None:
    curve = Curve(tuple(zip(knots, shares, strict=False)), 1, 0.0, 0.0)
    low, high = curve.at(min(a, b)), curve.at(max(a, b))
    assert 0 <= low <= high + 1e-12
    assert high <= 1


def test_what_is_not_calibrated_has_no_confidence() -> None:
    read = read_calibration(GOOD, "file")
    assert read.of_object("detect", 0.3) == pytest.approx(0.5)
    assert read.of_object("detect", None) is None
    assert read.of_object("ground", 0.3) is None
    assert read.of_answer("detect", [-0.1]) is None
    assert read.of_answer("query", [math.log(0.9), math.log(0.1)]) == pytest.approx(0.5)
    assert read.of_answer("query", []) is None
    assert read.of_answer("query", [math.nan]) is None


def test_others_learn_the_tasks_and_thresholds() -> None:
    detect, query = read_calibration(GOOD, "file").summary
    assert detect == CalibratedTask("detect", 0.7, (("other", 0.6),))
    assert query == CalibratedTask("query")
    assert (detect.before(["other"]), detect.before(["other", "unknown"]), query.before(["other"])) == (0.6, 0.7, None)


WRONG: tuple[dict[str, Any], ...] = (
    {"curve": []},
    {"curve": [[0.1]]},
    {"curve": [[0.1, 1.2]]},
    {"curve": [[0.1, True]]},
    {"curve": [[0.1, math.nan]]},
    {"curve": [[0.5, 0.2], [0.1, 0.8]]},
    {"curve": [[0.1, 0.2], [0.1, 0.8]]},
    {"curve": [[0.1, 0.8], [0.5, 0.2]]},
    {"curve": [[number / 100, 0.5] for number in range(MAX_KNOTS + 1)]},
    {"count": -1},
    {"count": 1.5},
    {"error_before": None},
    {"error_after": 2},
    {"threshold": "high"},
    {"thresholds": {"other": 2}},
    {"thresholds": 1},
)
BAD: list[tuple[dict[str, Any], str]] = [
    ({**GOOD, "version": 2}, "version"),
    ({**GOOD, "version": "1"}, "version"),
    ({**GOOD, "date": 7}, "date"),
    ({**GOOD, "tasks": []}, "tasks"),
    ({**GOOD, "tasks": {str(number): {} for number in range(65)}}, "tasks"),
    ({**GOOD, "tasks": {"detect": 1}}, "detect"),
    *(({**GOOD, "tasks": {"detect": {"objects": {**CURVE, **wrong}}}}, next(iter(wrong))) for wrong in WRONG),
]


@pytest.mark.parametrize(("values", "key"), BAD)
def test_a_wrong_file_is_refused_by_the_name_of_the_key(values: dict[str, Any], key: str) -> None:
    with pytest.raises(CheckpointError, match=f"{key if key != 'thresholds' else ''}.*delete it"):
        read_calibration(values, "calibration.json")


@pytest.mark.parametrize("content", ["{", "[1]", " " * (MAX_BYTES + 1)])
def test_a_broken_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"calibration\.json"):
        find_calibration(tmp_path, "here", None, tmp_path)


def test_published_weights_are_found_by_repository_and_revision(tmp_path: Path) -> None:
    beside = tmp_path / "calibrations"
    beside.mkdir()
    (beside / published_name("maker/model", "a" * 40)).write_text(json.dumps(GOOD))
    assert find_calibration(tmp_path, "maker/model", "a" * 40, beside).date == "2026-11-27"
    assert find_calibration(tmp_path, "maker/model", "b" * 40, beside) == Calibration()
    assert find_calibration(tmp_path, "maker/model", None, beside) == Calibration()


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrated") / "moondream"
    shutil.copytree(MINIATURES / "moondream-2", folder)
    flat = {**CURVE, "curve": [[0.5, 0.625]]}
    tasks = {"detect": {"objects": flat}, "query": {"answers": {**flat, "curve": [[0.5, 0.375]]}}}
    (folder / "calibration.json").write_text(json.dumps({**GOOD, "tasks": tasks}))
    return folder


def test_a_loaded_checkpoint_answers_with_confidences(calibrated: Path) -> None:
    loaded = load(calibrated, device="cpu")
    assert [one.name for one in info(loaded).calibrated] == ["detect", "query"]
    image = plain(64, 64)

    async def ask(engine: Engine) -> None:
        found = (await engine.complete(Request(image, task=Task("detect", labels=("shape", "star"))))).grounding
        assert {one.confidence for one in found.detections} <= {0.625}
        points = (await engine.complete(Request(image, task=Task("point", labels=("shape",))))).grounding
        assert {one.confidence for one in points.detections} <= {None}
        question = Task("query", text="How many shapes are there?")
        for logprobs, confidence in ((True, 0.375), (False, None)):
            asked = Request(image, task=question, sampling=Sampling(logprobs=logprobs))
            assert (await engine.complete(asked)).confidence == confidence

    import asyncio

    with Engine(loaded) as engine:
        asyncio.run(ask(engine))


def test_a_broken_file_is_an_error_when_the_checkpoint_is_loaded(calibrated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(calibrated, folder)
    (folder / "calibration.json").write_text(json.dumps({**GOOD, "version": 9}))
    with pytest.raises(CheckpointError, match="version must be 1"):
        load(folder, device="cpu")


def test_a_task_is_judged_by_its_text_where_that_is_calibrated() -> None:
    text, objects = Curve(((0.5, 0.5),), 1, 0, 0, 0.9), Curve(((0.5, 0.5),), 1, 0, 0, 0.8)
    assert TaskCalibration(objects, text).judged is text
    assert TaskCalibration(objects).judged is objects
    assert TaskCalibration().judged is None
