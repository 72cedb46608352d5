"""What several models agree on: their objects matched one to one and merged.

Objects of two models are the same one if they have the same label, as :func:`label_key` reads it, and lie on each
other: boxes by the intersection over their union, points by their distance. Each model has at most one vote for an
object. The pairs are those with the greatest overlap altogether (the Hungarian method, Kuhn 1955, as scipy has it), and
the merged box is the weighted mean of the boxes ("weighted boxes fusion", Solovyev et al. 2021). A box weighs as much
as its model does, and, where all that agree have a confidence, by the square of its own. Raw scores are of no use here,
since those of different models are on different scales.

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

from vlm.models.cards import Card, TaskCard
from vlm.types import Box, Consensus, Detection, Grounding, Point, Polygon

MIN_OVERLAP = 0.45
"""Of two boxes: the intersection over the union. A little under the 0.5 by which detectors are mostly judged, since two
boxes that both are right by that may differ more from each other than from the truth."""

MAX_DISTANCE = 0.05
"""Of two points, as a share of the image's sides."""

MIN_LIKENESS = 0.8
"""Of two texts that were read: the share of the letters that are the same and in the same order."""

_LEAST_CONFIDENCE = 0.01
"""No box weighs less, so that those without any confidence have a mean, too."""

_ARTICLE = re.compile(r"^(?:an?|the|one|another|some)\s+", re.IGNORECASE)
_NOT_WORDS = re.compile(r"[^\w\s]+")
_NO_PLURALS = ("ss", "us", "is")


@dataclass(frozen=True, slots=True)
class Vote:
    """The answer of one model.

    Attributes:
        model: Its name, which differs from that of the others.
        grounding: What it has found.
        weight: How much it counts in the place and the score of what it agrees on; more than 0. See :func:`weight_of`.
    """

    model: str
    grounding: Grounding
    weight: float = 1.0


Member = tuple[Vote, Detection]
"""One of the objects of a model."""


@dataclass(slots=True)
class _Cluster:
    """What several models have found in one place.

    Attributes:
        members: Each with the vote that it is from; at most one of a model.
        merged: Their mean.
    """

    members: list[Member]
    merged: Detection = field(init=False)

    def __post_init__(self) -> None:
        self.merged = _mean(self.members)

    def add(self, vote: Vote, found: Detection) -> None:
        self.members.append((vote, found))
        self.merged = _mean(self.members)


def weight_of(card: Card, task: str) -> float:
    """How much a model counts by its card: 1 for the best at a task, 1/2 for the second."""
    known = next((one for one in card.tasks if one.name == task), TaskCard(task))
    return 1 / known.rank


def majority(models: int) -> int:
    """Votes of more than half of so many models; of two, both."""
    return models // 2 + 1


def agreed(votes: Sequence[Vote], min_votes: int | None = None) -> Grounding:
    """The objects on which at least ``min_votes`` models agree, the best by score first.

    Args:
        votes: At least one answer, all to the same task about the same images.
        min_votes: By default that of :func:`majority`.

    Returns:
        The grounding of the model with the greatest weight, without text, with the merged objects. Their score is the
        weighted mean of the confidences of all models, where one that has not found the object counts 0, and one that
        has but is not calibrated counts 1: without calibration and weights it is the share of the models that agree.
    """
    ordered = sorted(votes, key=lambda vote: (-vote.weight, vote.model))
    weight = math.fsum(vote.weight for vote in ordered)
    needed = majority(len(ordered)) if min_votes is None else min_votes
    clusters: list[_Cluster] = []
    for vote in ordered:
        _join(clusters, vote)
    kept = [cluster for cluster in clusters if len(cluster.members) >= needed]
    found = sorted((_result(cluster, weight) for cluster in kept), key=_rank)
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
            clusters[pairs[index]].add(vote, one)
        else:
            clusters.append(_Cluster([(vote, one)]))


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
            if keys[column] == key and (shared := overlap(one, other)) and _reads_alike(one, other):
                likeness[row, column] = shared
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


def _mean(members: Sequence[Member]) -> Detection:
    """The mean of objects, as an object with the most common label."""
    found, weights = [one for _, one in members], _weights(members)
    label, image = _commonest([one.label for one in found]), found[0].image
    if found[0].kind == "point":
        points = [one.point or Point(0, 0) for one in found]
        return Detection("point", label=label, point=_point(points, weights), image=image)
    quads = [one.quad for one in found if one.quad is not None]
    quad = _quad(quads, weights) if len(quads) == len(found) else None
    return Detection(
        "box" if quad is None else "quad",
        label=label,
        text=_commonest([one.text for one in found]),
        box=_box([one.box or Box(0, 0, 0, 0) for one in found], weights),
        quad=quad,
        image=image,
    )


def _weights(members: Sequence[Member]) -> list[float]:
    confidences = [one.confidence for _, one in members if one.confidence is not None]
    calibrated = len(confidences) == len(members)
    factors = [max(one, _LEAST_CONFIDENCE) ** 2 for one in confidences] if calibrated else [1.0] * len(members)
    return [vote.weight * factor for (vote, _), factor in zip(members, factors, strict=True)]


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    """The mean, which rounding does not take beyond the values."""
    mean = math.fsum(weight * value for value, weight in zip(values, weights, strict=True)) / math.fsum(weights)
    return min(max(mean, min(values)), max(values))


def _box(boxes: Sequence[Box], weights: Sequence[float]) -> Box:
    def side(of: Callable[[Box], float]) -> float:
        return _weighted([of(box) for box in boxes], weights)

    left, top = side(lambda box: box.x_min), side(lambda box: box.y_min)
    return Box(left, top, side(lambda box: box.x_max), side(lambda box: box.y_max))


def _point(points: Sequence[Point], weights: Sequence[float]) -> Point:
    return Point(_weighted([one.x for one in points], weights), _weighted([one.y for one in points], weights))


def _quad(quads: Sequence[Polygon], weights: Sequence[float]) -> Polygon:
    """Corner by corner: they go clockwise from the top left."""
    return tuple(_point(corners, weights) for corners in zip(*quads, strict=True))


def _commonest(words: Sequence[str | None]) -> str | None:
    """The word that most have written; of several, the first."""
    return Counter(words).most_common(1)[0][0]


def _result(cluster: _Cluster, weight: float) -> Detection:
    """The merged object with what is known of the agreement, of votes with so much weight altogether."""
    names = tuple(sorted(vote.model for vote, _ in cluster.members))
    apart = [1 - _closeness(found, cluster.merged) for _, found in cluster.members]
    believed = (vote.weight * (1.0 if one.confidence is None else one.confidence) for vote, one in cluster.members)
    consensus = Consensus(len(names), names, math.fsum(apart) / len(apart))
    return replace(cluster.merged, score=math.fsum(believed) / weight, consensus=consensus)


def _closeness(found: Detection, merged: Detection) -> float:
    if merged.point is not None and found.point is not None:
        return 1 - math.dist((found.point.x, found.point.y), (merged.point.x, merged.point.y))
    return iou(found.box, merged.box) if found.box is not None and merged.box is not None else 0.0


def _rank(found: Detection) -> tuple[float, float, int, str, tuple[float, float]]:
    """The best score first, then the least spread; the rest makes the order one that does not depend on the models'."""
    assert found.consensus is not None, "it has just been made"
    box = found.box or Box(0, 0, 0, 0)
    place = (found.point.x, found.point.y) if found.point else (box.x_min, box.y_min)
    return -(found.score or 0.0), found.consensus.spread, found.image, found.label or "", place
