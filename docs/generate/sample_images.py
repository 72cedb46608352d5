"""The images to try, as scenes of the miniatures' world: written by hand, in pixels, each with a request that suits it.

How shapes and words look, and which sentences are true of a scene, is defined in :mod:`training.data`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from training.data.drawing import draw
from training.data.lettering import ink
from training.data.scenes import Scene, Shape, Texture, Word
from training.data.sentences import caption, plain
from training.data.shapes import BACKGROUNDS, COLOURS
from vlm.types import Box

Json = dict[str, Any]
Corners = tuple[int, int, int, int]
Thing = Shape | Word

FLAT = Texture((0.0, 0.0), 0.0, 1, 0.0, 0)
_LARGE_FROM = 0.265
"""Width of the narrowest shape that is called large, in parts of the square root of the image's area."""


@dataclass(frozen=True)
class SampleImage:
    """An image for people to try.

    Attributes:
        name: Name of its file, without the suffix.
        scene: Everything that is in it.
        model: Name of a model to ask about it.
        task: A task for that model: the value of ``"task"`` in a request.
    """

    name: str
    scene: Scene
    model: str
    task: Json

    @property
    def caption(self) -> str:
        """What a short caption should say."""
        return plain(caption(self.scene))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.scene.width, self.scene.height

    def render(self) -> Image.Image:
        """The image in RGB."""
        return draw(self.scene)

    def thing(self, name: str) -> Thing:
        """The shape or word of that name, which must be in the image."""
        return next(one for one in self.scene.things if name_of(one) == name)

    def corners(self, thing: Thing) -> Corners:
        """Left, top, right and bottom of a thing, in pixels."""
        width, height = self.size
        box = thing.box
        return round(box.x_min * width), round(box.y_min * height), round(box.x_max * width), round(box.y_max * height)


def name_of(thing: Thing) -> str:
    """``"red circle"`` for a shape; for a word, its letters."""
    return thing.text if isinstance(thing, Word) else thing.name


@dataclass(frozen=True)
class Canvas:
    """An empty image, on which shapes and words are placed in pixels."""

    width: int
    height: int
    background: str = "white"

    def scene(
        self, shapes: Sequence[Shape], word: Word | None = None, texture: Texture = FLAT, *, inside: bool = False
    ) -> Scene:
        """The image with these things on it: shapes from left to right, or the outer one first if one is inside."""
        shade = BACKGROUNDS[self.background]
        return Scene(self.width, self.height, tuple(shapes), word, self.background, shade, texture, inside)

    def shape(self, name: str, left: int, top: int, across: int, down: int | None = None) -> Shape:
        """A shape named by colour and kind, of ``across`` by ``down`` pixels (by default as high as wide)."""
        colour, kind = name.split()
        down = across if down is None else down
        size = "large" if math.sqrt(across * down) > _LARGE_FROM * self._root() else "small"
        return Shape(kind, colour, COLOURS[colour], size, self._box(left, top, across, down))

    def word(self, text: str, left: int, top: int, font: int, stroke: float = 0.0) -> Word:
        """A word whose ink begins at (left, top), in a font of ``font`` pixels."""
        black = ink(text, stroke)
        box = self._box(left, top, font * black.width, font * black.height)
        return Word(text, box, font / self._root(), stroke, self.background != "black")

    def _root(self) -> float:
        return math.sqrt(self.width * self.height)

    def _box(self, left: float, top: float, across: float, down: float) -> Box:
        return Box(
            left / self.width, top / self.height, (left + across) / self.width, (top + down) / self.height
        )  # fmt: skip


def _one() -> SampleImage:
    canvas = Canvas(320, 240)
    scene = canvas.scene([canvas.shape("green cross", 110, 70, 100)])
    return SampleImage("one-shape", scene, "blip-large", {"name": "caption"})


def _two() -> SampleImage:
    canvas = Canvas(480, 360, "beige")
    shapes = [canvas.shape("green triangle", 35, 120, 150), canvas.shape("purple star", 300, 60, 150, 145)]
    task = {"name": "ground", "text": "a green triangle left of a purple star"}
    return SampleImage("two-shapes", canvas.scene(shapes), "florence-2-base", task)


def _above() -> SampleImage:
    canvas = Canvas(400, 400, "gray")
    shapes = [canvas.shape("pink circle", 125, 210, 140), canvas.shape("orange diamond", 160, 50, 80)]
    return SampleImage(
        "above", canvas.scene(shapes), "kosmos-2", {"name": "query", "text": "What is above the pink circle?"}
    )


def _inside() -> SampleImage:
    canvas = Canvas(640, 480)
    shapes = [canvas.shape("blue square", 200, 110, 225), canvas.shape("yellow circle", 268, 178, 90)]
    scene = canvas.scene(shapes, inside=True)
    return SampleImage("inside", scene, "kosmos-2", {"name": "query", "text": "What is inside the blue square?"})


def _three() -> SampleImage:
    canvas = Canvas(480, 360)
    shapes = [
        canvas.shape("red circle", 30, 30, 145),
        canvas.shape("yellow star", 195, 225, 90),
        canvas.shape("blue square", 315, 90, 140),
    ]
    return SampleImage("three-shapes", canvas.scene(shapes), "florence-2-base", {"name": "detect"})


def _five() -> SampleImage:
    canvas = Canvas(1200, 800)
    shapes = [
        canvas.shape("red triangle", 40, 60, 320),
        canvas.shape("blue circle", 235, 545, 190),
        canvas.shape("yellow diamond", 460, 100, 200),
        canvas.shape("purple cross", 610, 530, 180),
        canvas.shape("green star", 825, 215, 330),
    ]
    return SampleImage("five-shapes", canvas.scene(shapes), "florence-2-base", {"name": "dense_caption"})


def _known_word() -> SampleImage:
    canvas = Canvas(480, 360)
    return SampleImage(
        "known-word", canvas.scene([], canvas.word("EXIT", 105, 140, 120)), "florence-2-base", {"name": "ocr_regions"}
    )


def _random_word() -> SampleImage:
    canvas = Canvas(640, 480, "beige")
    return SampleImage(
        "random-word", canvas.scene([], canvas.word("HKR", 130, 180, 170)), "florence-2-base", {"name": "ocr"}
    )


def _word_and_shapes() -> SampleImage:
    canvas = Canvas(800, 600)
    shapes = [canvas.shape("purple circle", 60, 60, 230), canvas.shape("orange triangle", 480, 60, 230)]
    scene = canvas.scene(shapes, canvas.word("OPEN", 150, 420, 170))
    task = {"name": "ground", "text": "a purple circle left of an orange triangle with the word OPEN"}
    return SampleImage("word-and-shapes", scene, "florence-2-base", task)


def _black() -> SampleImage:
    canvas = Canvas(640, 480, "black")
    scene = canvas.scene([canvas.shape("pink diamond", 60, 40, 200)], canvas.word("BUS", 250, 300, 150))
    return SampleImage("black", scene, "florence-2-base", {"name": "caption", "length": "short"})


def _textured() -> SampleImage:
    canvas = Canvas(160, 120, "beige")
    shapes = [canvas.shape("blue triangle", 16, 40, 48), canvas.shape("red cross", 92, 28, 48)]
    scene = canvas.scene(shapes, texture=Texture((6.0, -5.0), 3.0, 9, 4.0, 1))
    return SampleImage("textured", scene, "florence-2-base", {"name": "segment", "text": "red cross"})


def _tall() -> SampleImage:
    canvas = Canvas(400, 800)
    shapes = [
        canvas.shape("red square", 20, 60, 180),
        canvas.shape("yellow circle", 145, 345, 110),
        canvas.shape("green star", 200, 560, 180),
    ]
    return SampleImage(
        "tall", canvas.scene(shapes), "kosmos-2", {"name": "query", "text": "How many shapes are there?"}
    )


def _wide() -> SampleImage:
    canvas = Canvas(1600, 800, "gray")
    shapes = [canvas.shape("brown star", 120, 210, 380), canvas.shape("purple square", 1130, 190, 220)]
    return SampleImage("wide", canvas.scene(shapes), "florence-2-base", {"name": "detect", "labels": ["purple square"]})


def _tiny() -> SampleImage:
    canvas = Canvas(64, 64)
    shapes = [canvas.shape("red triangle", 5, 20, 24), canvas.shape("blue circle", 36, 14, 24)]
    return SampleImage("tiny", canvas.scene(shapes), "blip-large", {"name": "caption"})


THREE, TWO, WORD = _three(), _two(), _known_word()
"""The images that the gallery asks about."""

IMAGES = (
    _one(), TWO, _above(), _inside(), THREE, _five(), WORD, _random_word(), _word_and_shapes(), _black(), _textured(),
    _tall(), _wide(), _tiny(),
)  # fmt: skip
