"""The example images before they are drawn: scenes of the miniature world, written by hand, in pixels.

Owns what each image shows and which request suits it. Knows nothing of files, pages or answers; how things look and
what is true of them, the world says (:mod:`miniatures`).
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
_BETWEEN = 0.265
"""Of the root of the image's area: what is wider is large, in the world's words."""


@dataclass(frozen=True)
class SampleImage:
    """An image for people to try.

    Attributes:
        name: Of its file, without the suffix.
        scene: All that is in it, and so all that is true of it.
        model: Whom to ask about it.
        task: What to ask: the value of ``"task"`` in a request.
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

    def drawn(self) -> Image.Image:
        """The image in RGB."""
        return draw(self.scene)

    def thing(self, name: str) -> Thing:
        """The shape of that name, or the word, which must be there."""
        return next(one for one in self.scene.things if name_of(one) == name)

    def corners(self, thing: Thing) -> Corners:
        """Left, top, right and bottom of a thing, in pixels."""
        width, height = self.size
        box = thing.box
        return round(box.x_min * width), round(box.y_min * height), round(box.x_max * width), round(box.y_max * height)


def name_of(thing: Thing) -> str:
    """``"red circle"`` of a shape; of a word, its letters."""
    return thing.text if isinstance(thing, Word) else thing.name


@dataclass(frozen=True)
class Sheet:
    """An empty image, to put things on by their pixels."""

    width: int
    height: int
    background: str = "white"

    def scene(
        self, shapes: Sequence[Shape], word: Word | None = None, texture: Texture = FLAT, *, inside: bool = False
    ) -> Scene:
        """The image with what is on it: shapes from left to right, or the outer one first where one is inside."""
        shade = BACKGROUNDS[self.background]
        return Scene(self.width, self.height, tuple(shapes), word, self.background, shade, texture, inside)

    def shape(self, name: str, left: int, top: int, across: int, down: int | None = None) -> Shape:
        """A shape of a colour and a kind, so many pixels wide and, unless told otherwise, as high."""
        colour, kind = name.split()
        down = across if down is None else down
        size = "large" if math.sqrt(across * down) > _BETWEEN * self._root() else "small"
        return Shape(kind, colour, COLOURS[colour], size, self._box(left, top, across, down))

    def word(self, text: str, left: int, top: int, font: int, stroke: float = 0.0) -> Word:
        """A word whose ink begins at a place, in a font of so many pixels."""
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
    sheet = Sheet(320, 240)
    scene = sheet.scene([sheet.shape("green cross", 110, 70, 100)])
    return SampleImage("one-shape", scene, "blip-large", {"name": "caption"})


def _two() -> SampleImage:
    sheet = Sheet(480, 360, "beige")
    shapes = [sheet.shape("green triangle", 35, 120, 150), sheet.shape("purple star", 300, 60, 150, 145)]
    task = {"name": "ground", "text": "a green triangle left of a purple star"}
    return SampleImage("two-shapes", sheet.scene(shapes), "florence-2-base", task)


def _above() -> SampleImage:
    sheet = Sheet(400, 400, "gray")
    shapes = [sheet.shape("pink circle", 125, 210, 140), sheet.shape("orange diamond", 160, 50, 80)]
    return SampleImage(
        "above", sheet.scene(shapes), "kosmos-2", {"name": "query", "text": "What is above the pink circle?"}
    )


def _inside() -> SampleImage:
    sheet = Sheet(640, 480)
    shapes = [sheet.shape("blue square", 200, 110, 225), sheet.shape("yellow circle", 268, 178, 90)]
    scene = sheet.scene(shapes, inside=True)
    return SampleImage("inside", scene, "kosmos-2", {"name": "query", "text": "What is inside the blue square?"})


def _three() -> SampleImage:
    sheet = Sheet(480, 360)
    shapes = [
        sheet.shape("red circle", 30, 30, 145),
        sheet.shape("yellow star", 195, 225, 90),
        sheet.shape("blue square", 315, 90, 140),
    ]
    return SampleImage("three-shapes", sheet.scene(shapes), "florence-2-base", {"name": "detect"})


def _five() -> SampleImage:
    sheet = Sheet(1200, 800)
    shapes = [
        sheet.shape("red triangle", 40, 60, 320),
        sheet.shape("blue circle", 235, 545, 190),
        sheet.shape("yellow diamond", 460, 100, 200),
        sheet.shape("purple cross", 610, 530, 180),
        sheet.shape("green star", 825, 215, 330),
    ]
    return SampleImage("five-shapes", sheet.scene(shapes), "florence-2-base", {"name": "dense_caption"})


def _known_word() -> SampleImage:
    sheet = Sheet(480, 360)
    return SampleImage(
        "known-word", sheet.scene([], sheet.word("EXIT", 105, 140, 120)), "florence-2-base", {"name": "ocr_regions"}
    )


def _random_word() -> SampleImage:
    sheet = Sheet(640, 480, "beige")
    return SampleImage(
        "random-word", sheet.scene([], sheet.word("HKR", 130, 180, 170)), "florence-2-base", {"name": "ocr"}
    )


def _word_and_shapes() -> SampleImage:
    sheet = Sheet(800, 600)
    shapes = [sheet.shape("purple circle", 60, 60, 230), sheet.shape("orange triangle", 480, 60, 230)]
    scene = sheet.scene(shapes, sheet.word("OPEN", 150, 420, 170))
    task = {"name": "ground", "text": "a purple circle left of an orange triangle with the word OPEN"}
    return SampleImage("word-and-shapes", scene, "florence-2-base", task)


def _black() -> SampleImage:
    sheet = Sheet(640, 480, "black")
    scene = sheet.scene([sheet.shape("pink diamond", 60, 40, 200)], sheet.word("BUS", 250, 300, 150))
    return SampleImage("black", scene, "florence-2-base", {"name": "caption", "length": "short"})


def _textured() -> SampleImage:
    sheet = Sheet(160, 120, "beige")
    shapes = [sheet.shape("blue triangle", 16, 40, 48), sheet.shape("red cross", 92, 28, 48)]
    scene = sheet.scene(shapes, texture=Texture((6.0, -5.0), 3.0, 9, 4.0, 1))
    return SampleImage("textured", scene, "florence-2-base", {"name": "segment", "text": "red cross"})


def _tall() -> SampleImage:
    sheet = Sheet(400, 800)
    shapes = [
        sheet.shape("red square", 20, 60, 180),
        sheet.shape("yellow circle", 145, 345, 110),
        sheet.shape("green star", 200, 560, 180),
    ]
    return SampleImage("tall", sheet.scene(shapes), "kosmos-2", {"name": "query", "text": "How many shapes are there?"})


def _wide() -> SampleImage:
    sheet = Sheet(1600, 800, "gray")
    shapes = [sheet.shape("brown star", 120, 210, 380), sheet.shape("purple square", 1130, 190, 220)]
    return SampleImage("wide", sheet.scene(shapes), "florence-2-base", {"name": "detect", "labels": ["purple square"]})


def _tiny() -> SampleImage:
    sheet = Sheet(64, 64)
    shapes = [sheet.shape("red triangle", 5, 20, 24), sheet.shape("blue circle", 36, 14, 24)]
    return SampleImage("tiny", sheet.scene(shapes), "blip-large", {"name": "caption"})


THREE, TWO, WORD = _three(), _two(), _known_word()
"""Those that the gallery asks about."""

IMAGES = (
    _one(), TWO, _above(), _inside(), THREE, _five(), WORD, _random_word(), _word_and_shapes(), _black(), _textured(),
    _tall(), _wide(), _tiny(),
)  # fmt: skip
