"""python -m benchmarks.consensus: are several models that agree right more often than the best of them?

Asks three miniatures for the shapes of four kinds in images that are hard to read (``benchmarks.shapes``), where each
of them errs, and merges what they find as the model ``consensus`` does. An object is right if it lies on a shape of its
kind, one object for a shape at most. Prints precision, recall and F1 at an intersection over union of 0.5 and 0.75, and
the precision among the best objects by score, as many as have a certain recall, which is the same for all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.score_auc import MINIATURES
from benchmarks.shapes import KINDS, LabelledImage, make_images
from vlm.consensus import Vote, agreed, iou, label_key, weight_of
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.models.cards import cards
from vlm.types import Box, Detection, Grounding, Request, Sampling, Task

MODELS = ("florence-2-base", "kosmos-2", "moondream-2")
OVERLAPS = (0.5, 0.75)
RECALLS = (0.3, 0.4, 0.5, 0.6)
HELD_OUT = 40_000
"""The seed of the first image; the rule of matching was chosen on others, from 20,000 on."""

Found = Sequence[Sequence[Detection]]
"""What was found in each image."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many objects are right.

    Attributes:
        right: Objects that lie on a shape of their kind.
        found: All objects.
        there: All shapes.
    """

    right: int
    found: int
    there: int

    @property
    def precision(self) -> float:
        """The share of the objects that is right."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """The share of the shapes that is found."""
        return self.right / self.there if self.there else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, merge, and print a table."""
    options = _parser().parse_args(arguments)
    images = make_images(options.images, options.seed, hard=True)
    answers = {model: ask(model, images) for model in MODELS}
    systems: dict[str, Found] = {
        model: [grounding.detections for grounding in found] for model, found in answers.items()
    }
    weights = {model: weight_of(cards()[model], "detect") for model in MODELS}
    for votes in range(2, len(MODELS) + 1):
        systems[f"consensus of {votes}"] = [
            agreed([Vote(model, answers[model][at], weights[model]) for model in MODELS], votes).detections
            for at in range(len(images))
        ]
    print(f"{len(images)} images from seed {options.seed}")
    for overlap in OVERLAPS:
        print_table(systems, images, overlap)
    return 0


def ask(model: str, images: Sequence[LabelledImage]) -> list[Grounding]:
    """What a miniature finds in each image."""
    task, greedy = Task("detect", labels=KINDS), Sampling(temperature=0.0)
    requests = [Request(image.image, task=task, sampling=greedy, stream=False) for image in images]
    with Engine(load(MINIATURES / model, dtype="float32", device="cpu")) as engine:
        return [answer.grounding for answer in engine.answer_all(requests)]


def print_table(systems: dict[str, Found], images: Sequence[LabelledImage], overlap: float) -> None:
    """A row for each system."""
    recalls = "".join(f"{f'at {recall}':>9}" for recall in RECALLS)
    print(f"\nIoU {overlap:<13}precision   recall       F1  best F1   precision{recalls}")
    for name, found in systems.items():
        tally = judged(found, images, overlap)
        best = max(judged(found, images, overlap, least).f1 for least in thresholds(found))
        curve = [at_recall(found, images, overlap, recall) for recall in RECALLS]
        told = "".join("        -" if one is None else f"{one.precision:9.3f}" for one in curve)
        print(f"{name:17}{tally.precision:9.3f}{tally.recall:9.3f}{tally.f1:9.3f}{best:9.3f}            {told}")


def thresholds(found: Found) -> list[float]:
    """Some scores from the least to the greatest: the choices of one who knows the answers."""
    scores = sorted({_score(one) for objects in found for one in objects}) or [0.0]
    return scores[:: max(1, len(scores) // 40)]


def judged(found: Found, images: Sequence[LabelledImage], overlap: float, least: float = -1.0) -> Tally:
    """How many objects with a score of at least ``least`` are right; each shape counts once."""
    right = number = 0
    for objects, image in zip(found, images, strict=True):
        kept = sorted((one for one in objects if _score(one) >= least), key=_score, reverse=True)
        number += len(kept)
        left = [*image.shapes]
        for one in kept:
            on = [shape for shape in left if label_key(one.label) == shape.kind and _lies_on(one, shape.box, overlap)]
            if on:
                right += 1
                left.remove(on[0])
    return Tally(right, number, sum(len(image.shapes) for image in images))


def at_recall(found: Found, images: Sequence[LabelledImage], overlap: float, recall: float) -> Tally | None:
    """The tally of the best objects by score that reach a recall; None if all together do not."""
    scores = sorted({_score(one) for objects in found for one in objects}, reverse=True)
    low, high = 0, len(scores) - 1
    if not scores or judged(found, images, overlap).recall < recall:
        return None
    while low < high:
        middle = (low + high) // 2
        if judged(found, images, overlap, scores[middle]).recall >= recall:
            high = middle
        else:
            low = middle + 1
    return judged(found, images, overlap, scores[low])


def _score(found: Detection) -> float:
    return 0.0 if found.score is None else found.score


def _lies_on(found: Detection, box: Box, overlap: float) -> bool:
    return found.box is not None and iou(found.box, box) >= overlap


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.consensus", description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=HELD_OUT, help="of the first image")
    return parser


if __name__ == "__main__":
    sys.exit(main())
