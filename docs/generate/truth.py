"""Whether an answer is right, in one short sentence: computed, so that it holds for whatever checkpoint answers.

Knows what a question's right answer is. Knows nothing of images' files or of the page.
"""

from __future__ import annotations

import re

from docs.generate.questions import Place, Question
from docs.generate.scenes import name_of
from training.data.shapes import COLOURS, KINDS
from training.evaluation.metrics import overlap
from vlm.types import Box, Completion, Detection

LEAST = 0.5
"""A box that overlaps the true one by less (intersection over union) is wrong."""

_TELLING = {*COLOURS, *KINDS, "small", "large", "left", "above", "exit", "one", "two", "three", "four", "five"}


def judged(question: Question, answer: Completion) -> str:
    """``"right"``, with the least overlap where there are boxes, or ``"wrong"`` and what is true."""
    faults, remark = [], ""
    if question.words is not None and _telling(answer.text) != _telling(question.words):
        faults.append(f"in truth *{question.words}*")
    if question.places:
        missing, overlaps = _compare(question.places, answer.grounding.detections)
        faults += [f"{_name(place)} is {_pixels(place, question)}" for place in missing]
        extra = len(answer.grounding.detections) - len(question.places)
        faults += [f"{extra} too many"] if extra > 0 else []
        remark = f"; overlap {min(overlaps):.2f}" + (" or more" if len(overlaps) > 1 else "") if overlaps else ""
    return f"**wrong**: {', '.join(faults)}" if faults else f"right{remark}"


def _telling(text: str) -> list[str]:
    """The words that can be right or wrong: the same thing may be said in several ways ("one red circle")."""
    said = [word for word in re.findall(r"\w+", text.casefold()) if word in _TELLING]
    return said if len(said) == 1 else [word for word in said if word != "one"]


def _compare(places: tuple[Place, ...], found: tuple[Detection, ...]) -> tuple[list[Place], list[float]]:
    """The places that were not found, and how well the others' boxes overlap the true ones."""
    missing, overlaps = [], []
    for place in places:
        fitting = [one for one in found if _is_named(one, place.label)]
        best = max((_overlap(one, place.thing.box) for one in fitting), default=0.0)
        if best < LEAST:
            missing.append(place)
        elif any(one.point is None for one in fitting):
            overlaps.append(best)
    return missing, overlaps


def _overlap(found: Detection, truth: Box) -> float:
    """Intersection over union; of a point, whether it lies within."""
    if found.point is not None:
        within = truth.x_min <= found.point.x <= truth.x_max and truth.y_min <= found.point.y <= truth.y_max
        return float(within)
    box = found.box
    return 0.0 if box is None else overlap(box, truth)


def _is_named(found: Detection, label: str | None) -> bool:
    return label is None or _telling(found.label or found.text or "") == _telling(label)


def _name(place: Place) -> str:
    return place.label or name_of(place.thing)


def _pixels(place: Place, question: Question) -> str:
    return f"`{' '.join(map(str, question.image.corners(place.thing)))}`"
