"""python -m benchmarks.score_auc: do right boxes have higher scores than wrong ones?

Shows the miniatures seeded images of which all is known, plain ones and such as are hard to read, and marks each
object of their answers: right if it overlaps a shape of its label by at least half (intersection over union). Prints,
for each task, the chance that a right object scores higher than a wrong one (area under the ROC curve, AUC; 0.5 is no
better than a coin). Knows nothing of how scores come about.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.shapes import COLOURS, KINDS, Scene, Shape, scenes
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.types import Box, Completion, Detection, Request, Sampling, Task

MINIATURES = Path(__file__).parent.parent / "miniatures"
ARTICLE = re.compile(r"^(an?|one|another) ")  # Kosmos-2 may say no trigram twice, and finds other words


@dataclass(frozen=True, slots=True)
class Question:
    """A task as the benchmark asks it.

    Attributes:
        name: As printed.
        model: A folder of ``miniatures``.
        task: What is asked about a scene, with numbers to draw from.
        labels: What a shape is rightly called in its answers.
    """

    name: str
    model: str
    task: Callable[[Scene, random.Random], Task]
    labels: Callable[[Shape], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Marked:
    """One object of an answer: whether it is right, and its score."""

    right: bool
    score: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all tasks and print a table."""
    options = _parser().parse_args(arguments)
    sampling = Sampling(num_beams=options.beams)
    print(f"{'model':17}{'task':19}{'images':10}{'right':>7}{'wrong':>7}{'AUC':>8}   median score, right and wrong")
    for model in dict.fromkeys(question.model for question in QUESTIONS):
        asked = [question for question in QUESTIONS if question.model == model]
        for kind, hard in (("plain", False), ("hard", True)):
            given = scenes(options.images, options.seed, hard=hard)
            for question, found in zip(asked, measure(asked, given, sampling), strict=True):
                print(f"{model:17}{question.name:19}{kind:10}{_line(found)}", flush=True)
    return 0


def measure(questions: Sequence[Question], given: Sequence[Scene], sampling: Sampling) -> list[list[Marked]]:
    """Ask the model of the first question each question about each scene.

    Returns:
        For each question, the objects of all answers; those without a score are left out.
    """
    requests = [request for question in questions for request in _requests(question, given, sampling)]
    answers = iter(_answers(MINIATURES / questions[0].model, requests))
    return [[one for scene in given for one in _marked(next(answers), scene, question)] for question in questions]


def area(found: Sequence[Marked]) -> float | None:
    """Chance that a right object scores higher than a wrong one, ties by half; None where one kind is missing."""
    right, wrong = _split(found)
    if not right or not wrong:
        return None
    wins = sum(bisect_left(wrong, score) + bisect_right(wrong, score) for score in right) / 2
    return wins / (len(right) * len(wrong))


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    shared = max(0.0, width) * max(0.0, height)
    both = sum((box.x_max - box.x_min) * (box.y_max - box.y_min) for box in (one, other))
    return shared / (both - shared)


def _requests(question: Question, given: Sequence[Scene], sampling: Sampling) -> Iterator[Request]:
    rng = random.Random(question.name)  # noqa: S311  test images, not secrets
    for scene in given:
        yield Request(scene.image, task=question.task(scene, rng), sampling=sampling)


def _answers(folder: Path, requests: Sequence[Request]) -> list[Completion]:
    async def together(engine: Engine) -> list[Completion]:
        gate = asyncio.Semaphore(32)  # fewer than the engine's places

        async def ask(request: Request) -> Completion:
            async with gate:
                return await engine.complete(request)

        return await asyncio.gather(*map(ask, requests))

    with Engine(load(folder, dtype="float32", device="cpu")) as engine:
        return asyncio.run(together(engine))


def _marked(answer: Completion, scene: Scene, question: Question) -> Iterator[Marked]:
    for found in answer.grounding.detections:
        if found.score is not None:
            yield Marked(any(_agree(found, shape, question) for shape in scene.shapes), found.score)


def _agree(found: Detection, shape: Shape, question: Question) -> bool:
    label = ARTICLE.sub("", found.label or "")
    return label in question.labels(shape) and found.box is not None and overlap(found.box, shape.box) >= 0.5


def _detection(scene: Scene, rng: random.Random) -> Task:  # noqa: ARG001  a task as Question has it
    return Task("detect")


def _open_vocabulary(scene: Scene, rng: random.Random) -> Task:
    shape = rng.choice(scene.shapes)
    return Task("detect", labels=(rng.choice((shape.kind, shape.name)),))


def _open_misread(scene: Scene, rng: random.Random) -> Task:
    (label,) = _open_vocabulary(scene, rng).labels
    return Task("detect", labels=(_misread(label, rng),))


def _phrases(scene: Scene, rng: random.Random) -> Task:  # noqa: ARG001  a task as Question has it
    return Task("ground", text=scene.caption)


def _phrases_misread(scene: Scene, rng: random.Random) -> Task:
    return Task("ground", text=_misread(scene.caption, rng))


def _dense_captions(scene: Scene, rng: random.Random) -> Task:  # noqa: ARG001  a task as Question has it
    return Task("dense_caption")


def _grounded_caption(scene: Scene, rng: random.Random) -> Task:  # noqa: ARG001  a task as Question has it
    return Task("caption", length="short")


def _one_phrase(scene: Scene, rng: random.Random) -> Task:
    return Task("ground", text=rng.choice(scene.shapes).phrase)


def _misread(text: str, rng: random.Random, share: float = 0.25) -> str:
    """Now and then another colour or shape than there is, so that a phrase may have no place in the image."""
    families = (tuple(COLOURS), KINDS)

    def word(given: str) -> str:
        family = next((names for names in families if given.rstrip(",") in names), None)
        return given if family is None or rng.random() > share else rng.choice(family)

    return " ".join(map(word, text.split()))


def _kind(shape: Shape) -> tuple[str, ...]:
    return (shape.kind,)


def _name(shape: Shape) -> tuple[str, ...]:
    return (shape.name,)


def _either(shape: Shape) -> tuple[str, ...]:
    return shape.kind, shape.name


def _sized(shape: Shape) -> tuple[str, ...]:
    return (f"{shape.size} {shape.name}",)


QUESTIONS = (
    Question("detection", "florence-2-base", _detection, _kind),
    Question("open vocabulary", "florence-2-base", _open_vocabulary, _either),
    Question("open, misread", "florence-2-base", _open_misread, _either),
    Question("phrase grounding", "florence-2-base", _phrases, _name),
    Question("phrases, misread", "florence-2-base", _phrases_misread, _name),
    Question("dense captions", "florence-2-base", _dense_captions, _sized),
    Question("grounded captions", "kosmos-2", _grounded_caption, _name),
    Question("phrase to box", "kosmos-2", _one_phrase, _name),
)


def _split(found: Sequence[Marked]) -> tuple[list[float], list[float]]:
    """Scores of right and of wrong objects, in order."""
    right, wrong = (sorted(one.score for one in found if one.right is kind) for kind in (True, False))
    return right, wrong


def _line(found: Sequence[Marked]) -> str:
    right, wrong = _split(found)
    value = area(found)
    middles = "   ".join(f"{median(scores):.2g}" if scores else "-" for scores in (right, wrong))
    return f"{len(right):7}{len(wrong):7}{'-' if value is None else f'{value:.3f}':>8}   {middles}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_auc")
    parser.add_argument("--images", type=int, default=400, help="of either kind, for each task")
    parser.add_argument("--seed", type=int, default=0, help="of the first image")
    parser.add_argument("--beams", type=int, default=None, help="as the checkpoint says, unless given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
