"""What several models agree on: their objects matched one to one and merged.

Objects of two models are the same one if they have the same label, as :func:`label_key` reads it, and lie on each
other: boxes by the intersection over their union, points by their distance. Each model has at most one vote for an
object. The pairs are those with the greatest overlap altogether (the Hungarian method, Kuhn 1955, as scipy has it), and
the merged box is the weighted mean of the boxes ("weighted boxes fusion", Solovyev et al. 2021). The weights are the
squares of the confidences, where all that agree have one, and else equal, since raw scores of different models are on
different scales. Squares place the boxes of the miniatures better than confidences themselves or their fourth powers.

The result depends on the models' answers and not on their order. scipy is imported when something is merged.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher

from vlm.types import Box, Consensus, Detection, Grounding, Point, Polygon

MIN_OVERLAP = 0.5
"""Of two boxes: the intersection over the union, as detectors are mostly judged."""

MAX_DISTANCE = 0.05
"""Of two points, as a share of the image's sides."""

MIN_LIKENESS = 0.8
"""Of two texts that were read: the share of the letters that are the same and in the same order."""

_ARTICLE = re.compile(r"^(?:an?|the|one|another|some)\s+", re.IGNORECASE)
_NOT_WORDS = re.compile(r"[^\w\s]+")
_NO_PLURALS = ("ss", "us", "is")


@dataclass(frozen=True, slots=True)
class Vote:
    """The answer of one model.

    Attributes:
        model: Its name, which differs from that of the others.
        grounding: What it has found.
    """

    model: str
    grounding: Grounding


@dataclass(slots=True)
class _Cluster:
    """What several models have found in one place.

    Attributes:
        members: Each with the name of its model; at most one of a model.
        merged: Their mean.
    """

    members: list[tuple[str, Detection]]
    merged: Detection = field(init=False)

    def __post_init__(self) -> None:
        self.merged = _mean([found for _, found in self.members])

    def add(self, model: str, found: Detection) -> None:
        self.members.append((model, found))
        self.merged = _mean([one for _, one in self.members])


def majority(models: int) -> int:
    """Votes of more than half of so many models; of two, both."""
    return models // 2 + 1


def agreed(votes: Sequence[Vote], min_votes: int | None = None) -> Grounding:
    """The objects on which at least ``min_votes`` models agree, those with the most votes first.

    Args:
        votes: At least one answer, all to the same task about the same images.
        min_votes: By default that of :func:`majority`.

    Returns:
        The grounding of the first model by name, without text, with the merged objects. Their score is the mean of
        the confidences of all models, where one that has not found the object counts 0, and one that has but is not
        calibrated counts 1: without calibration it is the share of the models that agree.
    """
    ordered = sorted(votes, key=lambda vote: vote.model)
    needed = majority(len(ordered)) if min_votes is None else min_votes
    clusters: list[_Cluster] = []
    for vote in ordered:
        _join(clusters, vote)
    kept = [cluster for cluster in clusters if len(cluster.members) >= needed]
    found = sorted((_result(cluster, len(ordered)) for cluster in kept), key=_rank)
    first = ordered[0].grounding
    return replace(
        first,
        native_task="",
        text=None,
        reasoning=None,
        raw="",
        detections=tuple(found),
        truncated=any(vote.grounding.truncated for vote in ordered),
        below_threshold=0,
    )


def label_key(label: str | None) -> str:
    """A label as it is compared: without case, accents, punctuation, a leading article, and the plural's last s."""
    if label is None:
        return ""
    plain = unicodedata.normalize("NFKD", label.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = _ARTICLE.sub("", _NOT_WORDS.sub(" ", plain).strip()).split()
    if words and len(words[-1]) > 3 and words[-1].endswith("s") and not words[-1].endswith(_NO_PLURALS):
        words[-1] = words[-1][:-1]
    return " ".join(words)


# Matching


def _join(clusters: list[_Cluster], vote: Vote) -> None:
    """Add a model's objects, each to the cluster that it belongs to, or as one of its own."""
    found = vote.grounding.detections
    pairs = dict(_pairs([cluster.merged for cluster in clusters], found))
    for index, one in enumerate(found):
        if index in pairs:
            clusters[pairs[index]].add(vote.model, one)
        else:
            clusters.append(_Cluster([(vote.model, one)]))


def _pairs(merged: Sequence[Detection], found: Sequence[Detection]) -> list[tuple[int, int]]:
    """(index in ``found``, index in ``merged``) of what belongs together."""
    if not merged or not found:
        return []
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    likeness = np.zeros((len(found), len(merged)))
    keys = [_key(one) for one in merged]
    for row, one in enumerate(found):
        key = _key(one)
        for column, other in enumerate(merged):
            if keys[column] == key and _reads_alike(one, other):
                likeness[row, column] = overlap(one, other)
    rows, columns = linear_sum_assignment(likeness, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if likeness[row, column] > 0]


def _key(found: Detection) -> tuple[int, bool, str]:
    """What must be equal for two objects to be the same one."""
    return found.image, found.kind == "point", label_key(found.label)


def _reads_alike(one: Detection, other: Detection) -> bool:
    if one.text is None or other.text is None:
        return one.text is other.text
    return SequenceMatcher(None, one.text.casefold(), other.text.casefold()).ratio() >= MIN_LIKENESS


def overlap(one: Detection, other: Detection) -> float:
    """How well two objects lie on each other, from 0 to 1; 0 if they are not the same one."""
    if one.kind == "point" or other.kind == "point":
        if one.point is None or other.point is None:
            return 0.0
        apart = math.dist((one.point.x, one.point.y), (other.point.x, other.point.y))
        return max(0.0, 1 - apart / (2 * MAX_DISTANCE)) if apart <= MAX_DISTANCE else 0.0
    if one.box is None or other.box is None:
        return 0.0
    shared = iou(one.box, other.box)
    return shared if shared >= MIN_OVERLAP else 0.0


def iou(one: Box, other: Box) -> float:
    """The intersection over the union; of two boxes without an area 1 if they are equal, else 0."""
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    shared = max(0.0, width) * max(0.0, height)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else float(one == other)


def _area(box: Box) -> float:
    return (box.x_max - box.x_min) * (box.y_max - box.y_min)


# Merging


def _mean(members: Sequence[Detection]) -> Detection:
    """The mean of objects, as an object with the most common label."""
    weights = _weights(members)
    first = members[0]
    if first.kind == "point":
        point = _point([one.point or Point(0, 0) for one in members], weights)
        return Detection("point", label=_commonest([one.label for one in members]), point=point, image=first.image)
    box = _box([one.box or Box(0, 0, 0, 0) for one in members], weights)
    quads = [one.quad for one in members if one.quad is not None]
    quad = _quad(quads, weights) if len(quads) == len(members) else None
    return Detection(
        "box" if quad is None else "quad",
        label=_commonest([one.label for one in members]),
        text=_commonest([one.text for one in members]),
        box=box,
        quad=quad,
        image=first.image,
    )


def _weights(members: Sequence[Detection]) -> list[float]:
    confidences = [one.confidence for one in members if one.confidence]
    weights = [one * one for one in confidences] if len(confidences) == len(members) else [1.0] * len(members)
    return [weight / math.fsum(weights) for weight in weights]


def _box(boxes: Sequence[Box], weights: Sequence[float]) -> Box:
    def side(of: Callable[[Box], float]) -> float:
        return math.fsum(weight * of(box) for box, weight in zip(boxes, weights, strict=True))

    left, top = side(lambda box: box.x_min), side(lambda box: box.y_min)
    return Box(left, top, side(lambda box: box.x_max), side(lambda box: box.y_max))


def _point(points: Sequence[Point], weights: Sequence[float]) -> Point:
    pairs = [*zip(points, weights, strict=True)]
    x = math.fsum(weight * point.x for point, weight in pairs)
    return Point(x, math.fsum(weight * point.y for point, weight in pairs))


def _quad(quads: Sequence[Polygon], weights: Sequence[float]) -> Polygon:
    """Corner by corner: they go clockwise from the top left."""
    return tuple(_point(corners, weights) for corners in zip(*quads, strict=True))


def _commonest(words: Sequence[str | None]) -> str | None:
    """The word that most have written; of several, the first."""
    return Counter(words).most_common(1)[0][0]


def _result(cluster: _Cluster, models: int) -> Detection:
    """The merged object with what is known of the agreement."""
    names = tuple(model for model, _ in cluster.members)
    apart = [1 - _closeness(found, cluster.merged) for _, found in cluster.members]
    spread = math.fsum(apart) / len(apart)
    believed = (1.0 if found.confidence is None else found.confidence for _, found in cluster.members)
    score = math.fsum(believed) / models
    return replace(cluster.merged, score=score, consensus=Consensus(len(names), names, spread))


def _closeness(found: Detection, merged: Detection) -> float:
    if merged.point is not None and found.point is not None:
        return 1 - math.dist((found.point.x, found.point.y), (merged.point.x, merged.point.y))
    return iou(found.box, merged.box) if found.box is not None and merged.box is not None else 0.0


def _rank(found: Detection) -> tuple[float, float, int, str, tuple[float, float]]:
    """Most votes first, then least spread; the rest makes the order the same whatever the order of the models was."""
    assert found.consensus is not None, "it has just been made"
    box = found.box or Box(0, 0, 0, 0)
    place = (found.point.x, found.point.y) if found.point else (box.x_min, box.y_min)
    return -(found.score or 0.0), found.consensus.spread, found.image, found.label or "", place
