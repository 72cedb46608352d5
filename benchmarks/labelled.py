"""Questions about images of the miniatures' world, with their right answers: half of the images are hard to read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.curves import Judged
from benchmarks.shapes import COLOURS, KINDS, LabelledImage, make_images
from training.data import sentences
from training.data.scenes import Shape
from training.evaluation.metrics import overlap
from vlm.calibration import answer_score
from vlm.engine.engine import Engine
from vlm.errors import InvalidRequest
from vlm.loading import load
from vlm.types import Completion, Detection, Point, Request, Sampling, Task

MIN_OVERLAP = 0.5
SHARE_ABSENT = 1 / 8
"""Of the labels to detect or point at: nothing in the image has that name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A task about an image, and what is right.

    Attributes:
        image: Encoded.
        task: What is asked.
        shapes: What is to be found.
        text: The answer, for tasks that are answered by a text.
    """

    image: bytes
    task: Task
    shapes: tuple[Shape, ...] = ()
    text: str | None = None

    @property
    def of_text(self) -> bool:
        """Whether the answer is a text."""
        return self.text is not None

    def request(self) -> Request:
        """As it is sent to an engine."""
        return Request(self.image, task=self.task, sampling=Sampling(logprobs=self.of_text), stream=False)


Make = Callable[[LabelledImage, random.Random], tuple[Task, tuple[Shape, ...], str | None]]


def _labelled(image: LabelledImage, rng: random.Random) -> str:
    if rng.random() < SHARE_ABSENT:
        return f"{rng.choice(COLOURS)} {rng.choice(KINDS)}"
    shape = rng.choice(image.shapes)
    return rng.choice((shape.kind, shape.name))


def _named(image: LabelledImage, label: str) -> tuple[Shape, ...]:
    return tuple(shape for shape in image.shapes if label in (shape.kind, shape.name))


def _detect(image: LabelledImage, rng: random.Random) -> tuple[Task, tuple[Shape, ...], str | None]:
    label = _labelled(image, rng)
    return Task("detect", labels=(label,)), _named(image, label), None


def _point(image: LabelledImage, rng: random.Random) -> tuple[Task, tuple[Shape, ...], str | None]:
    label = _labelled(image, rng)
    return Task("point", labels=(label,)), _named(image, label), None


def _ground(image: LabelledImage, rng: random.Random) -> tuple[Task, tuple[Shape, ...], str | None]:
    shape = rng.choice(image.shapes)
    return Task("ground", text=sentences.phrase(shape)), (shape,), None


def _caption(image: LabelledImage, rng: random.Random) -> tuple[Task, tuple[Shape, ...], str | None]:  # noqa: ARG001
    return Task("caption", length="short"), (), sentences.plain(sentences.caption(image.scene))


def _query(image: LabelledImage, rng: random.Random) -> tuple[Task, tuple[Shape, ...], str | None]:
    question = rng.choice([*sentences.questions(image.scene, rng)])
    return Task("query", text=question.text), (), question.answer


def _detect_all(image: LabelledImage, rng: random.Random) -> tuple[Task, tuple[Shape, ...], str | None]:  # noqa: ARG001
    return Task("detect"), image.shapes, None


TASKS: dict[str, Make] = {
    "caption": _caption,
    "detect": _detect,
    "ground": _ground,
    "point": _point,
    "query": _query,
}
"""What several models are asked alike."""

OTHER_WAYS: dict[str, Make] = {"detect": _detect_all}
"""How else a task is asked, of models that can be asked so: their scores are to be true of that, too."""


def questions(make: Make, number: int, seed: int) -> list[Question]:
    """So many questions, half of them about images that are hard to read; the same for the same seed."""
    rng = random.Random(f"{make.__name__} {seed}")  # noqa: S311  test images, not secrets
    images = [*make_images(number // 2, seed, hard=False), *make_images(number - number // 2, seed, hard=True)]
    return [Question(image.image, *make(image, rng)) for image in images]


# Judging


def is_right(question: Question, text: str | None, found: Sequence[Detection]) -> bool:
    """Whether an answer is right as a whole: its text, or all objects and no other."""
    if question.text is not None:
        return _plain(text or "") == _plain(question.text)
    return len(found) == len(question.shapes) and all(judge(question, found))


def judge(question: Question, found: Sequence[Detection]) -> Iterator[bool]:
    """Whether each object is right: one of the shapes that no other object has."""
    left, unnamed = list(question.shapes), question.task.name == "detect" and not question.task.labels
    for one in found:
        match = next(
            (shape for shape in left if _is_at(one, shape) and not (unnamed and one.label != shape.kind)), None
        )
        if match is not None:
            left.remove(match)
        yield match is not None


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()


def _is_at(found: Detection, shape: Shape) -> bool:
    if found.box is not None:
        return overlap(found.box, shape.box) >= MIN_OVERLAP
    return found.point is not None and _within(found.point, shape)


def _within(point: Point, shape: Shape) -> bool:
    box = shape.box
    return box.x_min <= point.x <= box.x_max and box.y_min <= point.y <= box.y_max


# Answers


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a question.

    Attributes:
        right: Whether the answer is right as a whole.
        objects: Of an answer of objects: each with its score.
        score: Of a text: the mean probability of its tokens; None for nothing.
    """

    right: bool
    objects: tuple[Judged, ...] = ()
    score: float | None = None


def outcome(question: Question, answer: Completion) -> Outcome:
    """Judge an answer."""
    found = answer.grounding.detections
    right = is_right(question, answer.grounding.text, found)
    if question.of_text:
        return Outcome(right, score=answer_score(list(answer.logprobs)))
    judged = zip(found, judge(question, found), strict=True)
    return Outcome(right, tuple(Judged(one.score, good) for one, good in judged if one.score is not None))


class Asked:
    """A checkpoint that answers questions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def can(self, question: Question) -> bool:
        """Whether it can be asked so."""
        try:
            asyncio.run(self._engine.complete(question.request()))
        except InvalidRequest:
            return False
        return True

    def outcomes(self, asked: Sequence[Question]) -> list[Outcome]:
        """What comes of all questions."""
        found = asyncio.run(self._answers(asked))
        return [outcome(question, answer) for question, answer in zip(asked, found, strict=True)]

    async def _answers(self, asked: Sequence[Question]) -> list[Completion]:
        in_flight = asyncio.Semaphore(_IN_FLIGHT)

        async def answer(question: Question) -> Completion:
            async with in_flight:
                return await self._engine.complete(question.request())

        return await asyncio.gather(*map(answer, asked))


@contextmanager
def asking(folder: Path) -> Iterator[Asked]:
    """The checkpoint in ``folder``, in float32 on the CPU."""
    with Engine(load(folder, dtype="float32", device="cpu")) as engine:
        yield Asked(engine)


_IN_FLIGHT = 32
"""Fewer than an engine accepts."""
