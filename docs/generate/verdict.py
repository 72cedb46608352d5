"""Says in one short sentence whether an answer is right: computed, so that it holds for any checkpoint's answer."""

from __future__ import annotations

import re

from docs.generate.questions import ExpectedObject, Question
from docs.generate.sample_images import name_of
from training.data.shapes import COLOURS, KINDS
from training.evaluation.metrics import overlap
from vlm.types import Box, Completion, Detection

MIN_OVERLAP = 0.5
"""A box whose intersection over union with the true box is smaller than this is wrong."""

_COUNTED_WORDS = {
    *COLOURS, *KINDS, "small", "large", "left", "above", "exit", "one", "two", "three", "four", "five",
}  # fmt: skip


def verdict_on(question: Question, answer: Completion) -> str:
    """``"right"``, with the smallest overlap if there are boxes, or ``"wrong"`` and what would have been right."""
    faults, remark = [], ""
    if question.text is not None and _key_words(answer.text) != _key_words(question.text):
        faults.append(f"it is *{question.text}*")
    if question.objects:
        missing, overlaps = _compare(question.objects, answer.grounding.detections)
        faults += [f"{_name(expected)} is {_pixels(expected, question)}" for expected in missing]
        extra = len(answer.grounding.detections) - len(question.objects)
        faults += [f"{extra} too many"] if extra > 0 else []
        remark = f"; overlap {min(overlaps):.2f}" + (" or more" if len(overlaps) > 1 else "") if overlaps else ""
    return f"**wrong**: {', '.join(faults)}" if faults else f"right{remark}"


def _key_words(text: str) -> list[str]:
    """The words that decide: the same thing may be said in several ways ("one red circle", "a red circle")."""
    words = [word for word in re.findall(r"\w+", text.casefold()) if word in _COUNTED_WORDS]
    return words if len(words) == 1 else [word for word in words if word != "one"]


def _compare(
    expected: tuple[ExpectedObject, ...], found: tuple[Detection, ...]
) -> tuple[list[ExpectedObject], list[float]]:
    """The expected objects that were not found, and the overlap of each box that was found with its true box."""
    missing, overlaps = [], []
    for one in expected:
        candidates = [detection for detection in found if _is_named(detection, one.label)]
        best = max((_overlap(detection, one.thing.box) for detection in candidates), default=0.0)
        if best < MIN_OVERLAP:
            missing.append(one)
        elif any(detection.point is None for detection in candidates):
            overlaps.append(best)
    return missing, overlaps


def _overlap(found: Detection, true_box: Box) -> float:
    """Intersection over union; for a point, 1 if it lies in the box and else 0."""
    if found.point is not None:
        within_x = true_box.x_min <= found.point.x <= true_box.x_max
        return float(within_x and true_box.y_min <= found.point.y <= true_box.y_max)
    return 0.0 if found.box is None else overlap(found.box, true_box)


def _is_named(found: Detection, label: str | None) -> bool:
    return label is None or _key_words(found.label or found.text or "") == _key_words(label)


def _name(expected: ExpectedObject) -> str:
    return expected.label or name_of(expected.thing)


def _pixels(expected: ExpectedObject, question: Question) -> str:
    return f"`{' '.join(map(str, question.image.corners(expected.thing)))}`"
