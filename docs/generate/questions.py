"""The gallery's questions: at least one for each task of each model that can locate things, with the right answer.

Tasks are written as the HTTP API takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from docs.generate.sample_images import THREE, TWO, WORD, Json, SampleImage, Thing
from training.data.scenes import Shape
from training.data.sentences import dense, phrase

GALLERY_IMAGES = (THREE, TWO, WORD)
"""The images that the questions are about."""


@dataclass(frozen=True)
class ExpectedObject:
    """A thing that the answer must contain; ``label`` is its label there, or None if any or no label is right."""

    label: str | None
    thing: Thing


@dataclass(frozen=True)
class Question:
    """One task about one image.

    Attributes:
        model: Its name in requests, which is also the name of its miniature's folder.
        kind: The task's name and what is special about this use of it; the end of the file's name.
        image: The image that is asked about.
        task: The value of ``"task"`` in a request.
        text: The right text, or None if the answer has no text that is judged.
        objects: All objects of a right answer; empty if its objects are not judged.
    """

    model: str
    kind: str
    image: SampleImage
    task: Json
    text: str | None = None
    objects: tuple[ExpectedObject, ...] = ()

    @property
    def file(self) -> str:
        """The image's file name."""
        return f"{self.model}-{self.kind}.png"


def _all(image: SampleImage, label: Callable[[Shape], str | None]) -> tuple[ExpectedObject, ...]:
    return tuple(ExpectedObject(label(shape), shape) for shape in image.scene.shapes)


def _one(image: SampleImage, name: str, label: str | None) -> tuple[ExpectedObject, ...]:
    return (ExpectedObject(label, image.thing(name)),)


def _region(name: str, image: SampleImage, thing: str) -> Json:
    """A task about the region of one thing, in pixels."""
    return {"name": name, "region": {"box_px": list(image.corners(image.thing(thing)))}}


def _kind(shape: Shape) -> str:
    return shape.kind


def _unnamed(_: Shape) -> None:
    return None


def _florence2(model: str) -> tuple[Question, ...]:
    circle_and_star = (*_one(THREE, "red circle", "circle"), *_one(THREE, "yellow star", "star"))
    wanted: Json = {"labels": ["circle", "star"]}
    return (
        Question(model, "detect", THREE, {"name": "detect"}, None, _all(THREE, _kind)),
        Question(model, "detect-labels", THREE, {"name": "detect", **wanted}, None, circle_and_star),
        Question(model, "point", TWO, {"name": "point"}, None, _all(TWO, _kind)),
        Question(model, "point-labels", THREE, {"name": "point", **wanted}, None, circle_and_star),
        Question(model, "ground", TWO, {"name": "ground", "text": TWO.caption}, None, _all(TWO, phrase)),
        Question(model, "dense_caption", TWO, {"name": "dense_caption"}, None, _all(TWO, dense)),
        Question(model, "region_proposal", THREE, {"name": "region_proposal"}, None, _all(THREE, _unnamed)),
        Question(
            model, "segment", TWO, {"name": "segment", "text": "purple star"}, None, _one(TWO, "purple star", None)
        ),
        Question(
            model, "segment-region", TWO, _region("segment", TWO, "green triangle"), None,
            _one(TWO, "green triangle", None),
        ),
        Question(model, "region_caption", THREE, _region("region_caption", THREE, "yellow star"), "small yellow star"),
        Question(model, "region_category", THREE, _region("region_category", THREE, "red circle"), "circle"),
        Question(model, "region_ocr", WORD, _region("region_ocr", WORD, "EXIT"), "EXIT"),
        Question(model, "ocr_regions", WORD, {"name": "ocr_regions"}, None, _one(WORD, "EXIT", "EXIT")),
        Question(model, "ocr", WORD, {"name": "ocr"}, "EXIT"),
        Question(model, "caption", THREE, {"name": "caption", "length": "short"}, THREE.caption),
    )  # fmt: skip


def _kosmos2(model: str) -> tuple[Question, ...]:
    return (
        Question(
            model, "caption", THREE, {"name": "caption", "length": "short"}, THREE.caption, _all(THREE, phrase)
        ),
        Question(
            model, "ground", THREE, {"name": "ground", "text": "a blue square"}, None,
            _one(THREE, "blue square", "a blue square"),
        ),
        Question(
            model, "detect-labels", TWO, {"name": "detect", "labels": ["a green triangle", "a purple star"]}, None,
            _all(TWO, phrase),
        ),
        Question(model, "region_caption", TWO, _region("region_caption", TWO, "green triangle"), "a green triangle"),
        Question(model, "query", THREE, {"name": "query", "text": "How many shapes are there?"}, "three"),
    )  # fmt: skip


def _moondream2(model: str) -> tuple[Question, ...]:
    shapes = ["circle", "square"]
    found = (*_one(THREE, "red circle", "circle"), *_one(THREE, "blue square", "square"))
    return (
        Question(model, "detect-labels", THREE, {"name": "detect", "labels": shapes}, None, found),
        Question(model, "point-labels", THREE, {"name": "point", "labels": shapes}, None, found),
        Question(
            model, "ground", TWO, {"name": "ground", "text": "a purple star"}, None, _one(TWO, "purple star", None)
        ),
        Question(model, "query", THREE, {"name": "query", "text": "How many shapes are there?"}, "three"),
        Question(model, "caption", TWO, {"name": "caption", "length": "short"}, TWO.caption),
    )


QUESTIONS = (*_florence2("florence-2-base"), *_kosmos2("kosmos-2"), *_moondream2("moondream-2"))
