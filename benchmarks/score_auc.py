"""python -m benchmarks.score_auc: do right boxes have higher scores than wrong ones?

Sends the miniatures images with known contents, plain ones and ones that are hard to read, and judges each object of
their answers: it is right if it overlaps a shape of its label by at least half (intersection over union). Prints, for
each task, the probability that a right object scores higher than a wrong one: the area under the ROC curve (AUC), where
0.5 is no better than chance.
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

from benchmarks.shapes import COLOURS, KINDS, LabelledImage, make_images
from training.data.scenes import Shape
from training.data.sentences import phrase
from training.evaluation.metrics import overlap
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.types import Completion, Detection, Request, Sampling, Task

MINIATURES = Path(__file__).parent.parent / "miniatures"
ARTICLE = re.compile(r"^(an?|one|another) ")  # Kosmos-2 varies articles: it may not repeat a trigram
MIN_OVERLAP = 0.5


@dataclass(frozen=True, slots=True)
class Question:
    """A task of one model that the benchmark measures.

    Attributes:
        name: Of the row that is printed.
        model: Name of a folder in ``miniatures``.
        task: Makes the task for an image; random choices come from the generator.
        labels: The right labels of a shape.
    """

    name: str
    model: str
    task: Callable[[LabelledImage, random.Random], Task]
    labels: Callable[[Shape], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class JudgedObject:
    """One object of an answer: whether it is right, and its score."""

    right: bool
    score: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all tasks and print a table."""
    options = _parser().parse_args(arguments)
    sampling = Sampling(num_beams=options.beams)
    print(f"{'model':17}{'task':19}{'images':10}{'right':>7}{'wrong':>7}{'AUC':>8}   median score, right and wrong")
    for model in dict.fromkeys(question.model for question in QUESTIONS):
        questions = [question for question in QUESTIONS if question.model == model]
        for kind, hard in (("plain", False), ("hard", True)):
            images = make_images(options.images, options.seed, hard=hard)
            for question, objects in zip(questions, measure(questions, images, sampling), strict=True):
                print(f"{model:17}{question.name:19}{kind:10}{_line(objects)}", flush=True)
    return 0


def measure(
    questions: Sequence[Question], images: Sequence[LabelledImage], sampling: Sampling
) -> list[list[JudgedObject]]:
    """Send every question about every image to one model, that of the first question.

    Returns:
        For each question, the objects of all answers, except those without a score.
    """
    requests = [request for question in questions for request in _requests(question, images, sampling)]
    answers = iter(_answers(MINIATURES / questions[0].model, requests))
    return [[one for image in images for one in _judge(next(answers), image, question)] for question in questions]


def auc(objects: Sequence[JudgedObject]) -> float | None:
    """The probability that a right object scores higher than a wrong one, where ties count half.

    None if all objects are right or all are wrong.
    """
    right, wrong = _split(objects)
    if not right or not wrong:
        return None
    wins = sum(bisect_left(wrong, score) + bisect_right(wrong, score) for score in right) / 2
    return wins / (len(right) * len(wrong))


def _requests(question: Question, images: Sequence[LabelledImage], sampling: Sampling) -> Iterator[Request]:
    rng = random.Random(question.name)  # noqa: S311  test images, not secrets
    for image in images:
        yield Request(image.image, task=question.task(image, rng), sampling=sampling)


def _answers(folder: Path, requests: Sequence[Request]) -> list[Completion]:
    async def answer_all(engine: Engine) -> list[Completion]:
        in_flight = asyncio.Semaphore(32)  # fewer than the engine accepts

        async def answer(request: Request) -> Completion:
            async with in_flight:
                return await engine.complete(request)

        return await asyncio.gather(*map(answer, requests))

    with Engine(load(folder, dtype="float32", device="cpu")) as engine:
        return asyncio.run(answer_all(engine))


def _judge(answer: Completion, image: LabelledImage, question: Question) -> Iterator[JudgedObject]:
    for one in answer.grounding.detections:
        if one.score is not None:
            yield JudgedObject(any(_matches(one, shape, question) for shape in image.shapes), one.score)


def _matches(one: Detection, shape: Shape, question: Question) -> bool:
    label = ARTICLE.sub("", one.label or "")
    return label in question.labels(shape) and one.box is not None and overlap(one.box, shape.box) >= MIN_OVERLAP


def _detection(image: LabelledImage, rng: random.Random) -> Task:  # noqa: ARG001  the signature of Question.task
    return Task("detect")


def _open_vocabulary(image: LabelledImage, rng: random.Random) -> Task:
    shape = rng.choice(image.shapes)
    return Task("detect", labels=(rng.choice((shape.kind, shape.name)),))


def _open_misread(image: LabelledImage, rng: random.Random) -> Task:
    (label,) = _open_vocabulary(image, rng).labels
    return Task("detect", labels=(_misread(label, rng),))


def _phrases(image: LabelledImage, rng: random.Random) -> Task:  # noqa: ARG001  the signature of Question.task
    return Task("ground", text=image.caption)


def _phrases_misread(image: LabelledImage, rng: random.Random) -> Task:
    return Task("ground", text=_misread(image.caption, rng))


def _dense_captions(image: LabelledImage, rng: random.Random) -> Task:  # noqa: ARG001  the signature of Question.task
    return Task("dense_caption")


def _grounded_caption(image: LabelledImage, rng: random.Random) -> Task:  # noqa: ARG001  the signature of Question.task
    return Task("caption", length="short")


def _one_phrase(image: LabelledImage, rng: random.Random) -> Task:
    return Task("ground", text=phrase(rng.choice(image.shapes)))


def _misread(text: str, rng: random.Random, share: float = 0.25) -> str:
    """Exchange some colours and kinds at random, so that phrases may name something that is not in the image."""
    families = (COLOURS, KINDS)

    def exchange(word: str) -> str:
        family = next((names for names in families if word.rstrip(",") in names), None)
        return word if family is None or rng.random() > share else rng.choice(family)

    return " ".join(map(exchange, text.split()))


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


def _split(objects: Sequence[JudgedObject]) -> tuple[list[float], list[float]]:
    """The sorted scores of the right and of the wrong objects."""
    right, wrong = (sorted(one.score for one in objects if one.right is kind) for kind in (True, False))
    return right, wrong


def _line(objects: Sequence[JudgedObject]) -> str:
    right, wrong = _split(objects)
    value = auc(objects)
    medians = "   ".join(f"{median(scores):.2g}" if scores else "-" for scores in (right, wrong))
    return f"{len(right):7}{len(wrong):7}{'-' if value is None else f'{value:.3f}':>8}   {medians}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_auc")
    parser.add_argument(
        "--images", type=int, default=400, help="number of plain and of hard images per task (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first image (default: %(default)s)")
    parser.add_argument("--beams", type=int, default=None, help="number of beams (default: the checkpoint's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
