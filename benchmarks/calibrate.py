"""python -m benchmarks.calibrate MODEL_FOLDER...: how often what a checkpoint says with a score is right.

Asks each checkpoint about labelled images of the miniatures' world, half of them disturbed so that there are wrong
answers, fits a rising curve from scores to shares of what is right, and holds it against images of another seed. Prints
the reliability of scores and confidences, and their expected calibration error; writes ``calibration.json`` into each
folder. With several folders it also finds, for each pair with a task in common, the least confidence with which the
first one's answer is good enough: that keeps 99 % of the accuracy of the better of the two.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.curves import Bin, Judged, calibrated, expected_error, fit, least_threshold, reliability
from benchmarks.labelled import OTHER_WAYS, TASKS, Asked, Outcome, asking, questions
from vlm.calibration import FILE, VERSION, Curve

FIT_SEED, TEST_SEED = 6_000_000, 7_000_000
MIN_ACCURACY = 0.05
"""A task that is answered right less often than this is answered in other words, and is not calibrated."""
KEPT = 0.99
"""Of the accuracy of the better of two models, by a cascade of both."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """A task of a checkpoint.

    Attributes:
        curve: As it is stored, without thresholds.
        of_text: Whether the answers are texts.
        outcomes: Of the questions that all models get, by which thresholds are found.
        before, after: The reliability of scores and of confidences, with images that the curve was not fitted to.
    """

    curve: Curve
    of_text: bool
    outcomes: Sequence[Outcome]
    before: Sequence[Bin]
    after: Sequence[Bin]

    @property
    def right(self) -> list[bool]:
        """Of each question that all models get, whether the answer is right."""
        return [one.right for one in self.outcomes]

    @property
    def confidences(self) -> list[float | None]:
        """Of each answer: that of a text, or the least of its objects; None where nothing was found."""
        return [confidence_of(one, self.curve, of_text=self.of_text) for one in self.outcomes]


def confidence_of(outcome: Outcome, curve: Curve, *, of_text: bool) -> float | None:
    """The confidence of a whole answer; None where nothing was found."""
    if of_text:
        return None if outcome.score is None else curve.at(outcome.score)
    return min((curve.at(one.score) for one in outcome.objects), default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all checkpoints, print what was found and write it."""
    options = _parser().parse_args(arguments)
    measured = {folder: measure(folder, options.questions, options.seed) for folder in options.folders}
    for folder, tasks in measured.items():
        others = {other.name: found for other, found in measured.items() if other is not folder}
        path = folder / FILE
        path.write_text(json.dumps(calibration_json(tasks, others), indent=1) + "\n", encoding="utf-8")
        print(f"wrote {path}")
    return 0


def measure(folder: Path, number: int, seed: int) -> dict[str, Measured]:
    """All tasks of a checkpoint that can be calibrated."""
    found: dict[str, Measured] = {}
    with asking(folder) as model:
        for task in TASKS:
            measured = _measure_task(model, task, number, seed)
            if measured is not None:
                found[task] = measured
                print(_told(folder.name, task, measured), flush=True)
    return found


def calibration_json(tasks: Mapping[str, Measured], others: Mapping[str, Mapping[str, Measured]]) -> Json:
    """The content of the file, with the thresholds for each of the other models."""
    found = {
        task: _task_json(one, {name: of[task] for name, of in others.items() if task in of})
        for task, one in tasks.items()
    }
    return {"version": VERSION, "date": datetime.now(UTC).date().isoformat(), "tasks": found}


def _task_json(measured: Measured, others: Mapping[str, Measured]) -> Json:
    curve = measured.curve
    thresholds = {
        name: least_threshold(measured.confidences, measured.right, other.right, KEPT) for name, other in others.items()
    }
    known = {name: round(one, 4) for name, one in thresholds.items() if one is not None}
    return {
        "answers" if measured.of_text else "objects": {
            "curve": [[*knot] for knot in {_digits(score): round(share, 4) for score, share in curve.knots}.items()],
            "count": curve.count,
            "error_before": round(curve.error_before, 4),
            "error_after": round(curve.error_after, 4),
            "threshold": max(known.values(), default=None) if len(known) == len(thresholds) else None,
            "thresholds": known,
        }
    }


def _measure_task(model: Asked, task: str, number: int, seed: int) -> Measured | None:
    ways = [make for make in (TASKS.get(task), OTHER_WAYS.get(task)) if make is not None]
    ways = [make for make in ways if model.can(questions(make, 1, seed)[0])]
    if not ways:
        return None
    fitted, tested = (
        [model.outcomes(questions(make, count, seed + first)) for make in ways]
        for first, count in ((FIT_SEED, number), (TEST_SEED, number // 2))
    )
    of_text = questions(ways[0], 1, seed)[0].of_text
    if sum(one.right for one in fitted[0]) < MIN_ACCURACY * number:
        return None
    seen, unseen = (_judged([*chain(*one)], of_text=of_text) for one in (fitted, tested))
    curve = Curve(fit(seen), len(seen), 0.0, 0.0)
    after = calibrated(unseen, curve.at)
    curve = Curve(curve.knots, len(seen), expected_error(unseen), expected_error(after))
    return Measured(curve, of_text, fitted[0], reliability(unseen), reliability(after))


def _judged(outcomes: Sequence[Outcome], *, of_text: bool) -> list[Judged]:
    if of_text:
        return [Judged(one.score, one.right) for one in outcomes if one.score is not None]
    return [judged for one in outcomes for judged in one.objects]


def _digits(score: float) -> float:
    return float(f"{score:.6g}")


def _told(model: str, task: str, measured: Measured) -> str:
    curve = measured.curve
    accuracy = sum(measured.right) / len(measured.right)
    lines = [
        f"{model} {task}: {curve.count} {'answers' if measured.of_text else 'objects'}, accuracy {accuracy:.3f}, "
        f"expected calibration error {curve.error_before:.3f} before, {curve.error_after:.3f} after"
    ]
    for name, bins in (("score", measured.before), ("confidence", measured.after)):
        lines.append(f"  {name:11}" + "  ".join(f"{one.score:.2f}:{one.right:.2f} ({one.count})" for one in bins))
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate")
    parser.add_argument("folders", nargs="+", type=Path, metavar="MODEL_FOLDER", help="folders of checkpoints")
    parser.add_argument(
        "--questions", type=int, default=1200, help="per task to fit a curve to; half as many test it (default: 1200)"
    )
    parser.add_argument("--seed", type=int, default=0, help="added to the seeds of the images (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
