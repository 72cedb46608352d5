"""How often what a checkpoint says with a score is right: curves that were measured on labelled images.

A calibration belongs to weights, not to a family: other weights are right more or less often at the same score. It is a
small JSON object, which ``python -m benchmarks.calibrate`` writes; docs/scores.md describes it. Knows no model and no
files.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from vlm.errors import CheckpointError
from vlm.model_info import CalibratedTask

FILE = "calibration.json"
"""Its name in a checkpoint's folder."""

VERSION = 1

MAX_BYTES = 256 * 1024
"""Of the file; one with 64 tasks takes less."""
MAX_TASKS = 64
MAX_OTHERS = 64
MAX_KNOTS = 64
"""Of a curve: more would tell differences that no number of labelled images shows."""

Knot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Curve:
    """A rising curve from a score to the share of what has that score and is right.

    Attributes:
        knots: (score, confidence) by rising score, at least one; between two, the straight line counts, and beyond the
            ends the nearest.
        count: Number of labelled objects or answers that it was measured with.
        error_before, error_after: Expected calibration error of the score itself, and of the confidence, both with
            images that the curve was not fitted to.
        threshold: The least confidence with which an answer is good enough to ask no other model; None if none is.
        thresholds: The same, where it is known which model would be asked next.
    """

    knots: tuple[Knot, ...]
    count: int
    error_before: float
    error_after: float
    threshold: float | None = None
    thresholds: tuple[tuple[str, float], ...] = ()

    def at(self, score: float) -> float:
        """The confidence at a score."""
        after = bisect_right(self.knots, score, key=lambda knot: knot[0])
        if after == 0:
            return self.knots[0][1]
        if after == len(self.knots):
            return self.knots[-1][1]
        (left, low), (right, high) = self.knots[after - 1 : after + 1]
        return low + (high - low) * (score - left) / (right - left)


@dataclass(frozen=True, slots=True)
class TaskCalibration:
    """What is known of one task.

    Attributes:
        objects: Of the score of an object.
        answers: Of the mean probability of an answer's tokens, for tasks whose answer is a text.
    """

    objects: Curve | None = None
    answers: Curve | None = None

    @property
    def judged(self) -> Curve | None:
        """By what an answer is judged: by its text, or where that is not calibrated, by each of its objects."""
        return self.answers or self.objects


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one checkpoint.

    Attributes:
        date: When it was measured, ``2026-11-27``; "" for none.
        tasks: By canonical name.
    """

    date: str = ""
    tasks: Mapping[str, TaskCalibration] = field(default_factory=dict)

    def of_object(self, task: str, score: float | None) -> float | None:
        """The probability that an object is right; None where that was not measured."""
        curve = self.tasks.get(task, _UNKNOWN).objects
        return None if curve is None or score is None else curve.at(score)

    def of_answer(self, task: str, logprobs: list[float]) -> float | None:
        """The probability that a text is right, by its tokens; None where that was not measured."""
        curve = self.tasks.get(task, _UNKNOWN).answers
        score = answer_score(logprobs)
        return None if curve is None or score is None else curve.at(score)

    @property
    def summary(self) -> tuple[CalibratedTask, ...]:
        """What others have to know of it: the tasks, and the least confidence of a good answer to each."""
        judged = ((name, task.judged) for name, task in sorted(self.tasks.items()))
        return tuple(
            CalibratedTask(name, curve.threshold, curve.thresholds) for name, curve in judged if curve is not None
        )


_UNKNOWN = TaskCalibration()
NOT_CALIBRATED = Calibration()


def answer_score(logprobs: list[float]) -> float | None:
    """The geometric mean of the probabilities of a text's tokens; None where they are not known."""
    if not logprobs:
        return None
    mean = math.fsum(logprobs) / len(logprobs)
    return None if math.isnan(mean) else math.exp(min(0.0, mean))


def read_calibration(values: Mapping[str, Any], where: str) -> Calibration:
    """The calibration in a JSON object; ``where`` names the file in errors.

    Raises:
        CheckpointError: It is not one, or none of this version; the message names the key at fault.
    """
    fields = _Fields(values, where)
    if fields.count("version") != VERSION:
        raise fields.wrong("version", f"{VERSION}; write the file anew with this version's benchmarks.calibrate")
    date = values.get("date")
    if not isinstance(date, str):
        raise fields.wrong("date", "a text")
    tasks = fields.section("tasks")
    if len(tasks.values) > MAX_TASKS:
        raise fields.wrong("tasks", f"an object of at most {MAX_TASKS} tasks")
    return Calibration(date, {name: _task(tasks.section(name)) for name in tasks.values})


def _task(fields: _Fields) -> TaskCalibration:
    return TaskCalibration(
        *(_curve(fields.section(kind)) if fields.values.get(kind) is not None else None for kind in _KINDS)
    )


_KINDS = ("objects", "answers")


def _curve(fields: _Fields) -> Curve:
    threshold = None if fields.values.get("threshold") is None else fields.share("threshold")
    others = fields.section("thresholds") if "thresholds" in fields.values else _Fields({}, "")
    if len(others.values) > MAX_OTHERS:
        raise fields.wrong("thresholds", f"an object of at most {MAX_OTHERS} models")
    return Curve(
        fields.knots("curve"),
        fields.count("count"),
        fields.share("error_before"),
        fields.share("error_after"),
        threshold,
        tuple((name, others.share(name)) for name in others.values),
    )


@dataclass(frozen=True, slots=True)
class _Fields:
    """A JSON object and where it is."""

    values: Mapping[str, Any]
    where: str

    def section(self, key: str) -> _Fields:
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise self.wrong(key, "an object")
        return _Fields(value, f"{self.where} {key}")

    def count(self, key: str) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong(key, "a whole number from 0")
        return value

    def share(self, key: str) -> float:
        value = self.values.get(key)
        if not isinstance(value, int | float) or not _is_share(value):
            raise self.wrong(key, "a number from 0 to 1")
        return float(value)

    def knots(self, key: str) -> tuple[Knot, ...]:
        value = self.values.get(key)
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_KNOTS or not all(map(_is_knot, value)):
            raise self.wrong(key, f"a list of 1 to {MAX_KNOTS} pairs of numbers from 0 to 1")
        knots = tuple((float(score), float(confidence)) for score, confidence in value)
        if any(one[0] >= other[0] or one[1] > other[1] for one, other in pairwise(knots)):
            raise self.wrong(key, "pairs by rising score whose second numbers never fall")
        return knots

    def wrong(self, key: str, wanted: str) -> CheckpointError:
        return CheckpointError(
            f"{self.where}: {key} must be {wanted}. Write the file anew with `python -m benchmarks.calibrate`, or "
            "delete it: the model then answers without confidences."
        )


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_knot(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_share, value))
