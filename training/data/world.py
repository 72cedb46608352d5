"""The miniature world: for every seed one scene of coloured shapes and short words, always the same.

Owns how many things a scene holds, which, and where, so that what is said about it has one right answer. Random numbers
drawn in another order make another world: images, vocabularies and trained weights belong to one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from training.data.lettering import Extent, ink, room
from training.data.scenes import THIRDS, Scene, Shape, Texture, Word, middle
from training.data.shapes import BACKGROUNDS, COLOURS, KINDS, Colour
from vlm.types import Box, Point

HELD_OUT = 1_000_000_000
"""Seeds from here on are for evaluation only: training uses those below."""

SMALLEST_SIDE, LARGEST_SIDE = 64, 1600
"""Of an image, in pixels."""

KNOWN_WORDS = (
    "STOP", "EXIT", "OPEN", "SALE", "TAXI", "CAFE", "BANK", "HOTEL", "PARK", "SHOP",
    "GATE", "FIRE", "HELP", "LOVE", "NEWS", "FOOD", "GOLD", "BUS", "ZOO", "BAR",
)  # fmt: skip
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SIDES = {"small": (0.17, 0.22), "large": (0.31, 0.41)}  # of the root of the image's area


def scene(seed: int, size: tuple[int, int] | None = None) -> Scene:
    """The scene of a seed: always the same one. At a ``size`` (width, height) of one's own it is another scene."""
    rng = random.Random(seed)
    plan = _plan(rng)  # once: a crowded scene that does not fit at first must not become a rare one
    while True:
        found = Draft(rng, size).scene(plan)
        if found is not None:
            return found


@dataclass(frozen=True)
class _Plan:
    """What a scene will hold, before anything has a place."""

    count: int
    word: bool
    inside: bool


def _plan(rng: random.Random) -> _Plan:
    draw = rng.random()
    if draw < 0.32:
        return _Plan(rng.choices((0, 1, 2), (35, 45, 20))[0], word=True, inside=False)
    if draw < 0.36:
        return _Plan(2, word=False, inside=True)
    return _Plan(rng.choices((1, 2, 3, 4, 5), (26, 34, 22, 11, 7))[0], word=False, inside=False)


class Draft:
    """One attempt at a scene, given up where things do not fit or where what is said of them would be ambiguous."""

    def __init__(self, rng: random.Random, size: tuple[int, int] | None = None) -> None:
        self.rng, self.size = rng, size
        self.aspect = size[0] / size[1] if size else math.exp(rng.triangular(-math.log(2), math.log(2), 0.0))
        self.taken: list[Box] = []

    def scene(self, plan: _Plan) -> Scene | None:
        """What the plan says, or None."""
        background = self.background()
        word = self.word(background) if plan.word else None
        if word is None and plan.word:
            return None
        if word:
            self.take(word.box)
        shapes = self._nested() if plan.inside else self._row(plan.count)
        if shapes is None or not _tellable(shapes, plan.inside):
            return None
        return self.finished(background, shapes, (word,) if word else (), inside=plan.inside)

    def background(self) -> str:
        """The name of its colour."""
        return self.rng.choice(list(BACKGROUNDS))

    def take(self, box: Box) -> bool:
        """Keep a place for something, if nothing is near it."""
        free = not any(_touch(box, other) for other in self.taken)
        if free:
            self.taken.append(box)
        return free

    def finished(
        self, background: str, shapes: Sequence[Shape], words: Sequence[Word], *, inside: bool = False
    ) -> Scene:
        """The image's size, shade and texture come last."""
        width, height = self.size or self._any_size()
        shade = jittered(self.rng, BACKGROUNDS[background], 7)
        word, more = (words[0], tuple(words[1:])) if words else (None, ())
        return Scene(width, height, tuple(shapes), word, background, shade, self._texture(), inside, more)

    def _any_size(self) -> tuple[int, int]:
        """Small images are rarer than large ones: little can be told on 64 pixels."""
        stretch = max(self.aspect, 1 / self.aspect)
        most = math.log(LARGEST_SIDE / stretch / SMALLEST_SIDE)
        short = SMALLEST_SIDE * math.exp(most * max(self.rng.random(), self.rng.random()))
        sides = (short * stretch, short) if self.aspect > 1 else (short, short * stretch)
        return round(sides[0]), round(sides[1])

    def _texture(self) -> Texture:
        rng = self.rng
        slope = (rng.uniform(-8, 8), rng.uniform(-8, 8)) if rng.random() < 0.4 else (0.0, 0.0)
        stripes = rng.uniform(1, 4) if rng.random() < 0.2 else 0.0
        grain = rng.uniform(2, 10) if rng.random() < 0.35 else 0.0
        return Texture(slope, stripes, rng.randint(4, 20), grain, rng.getrandbits(32))

    def _row(self, count: int) -> list[Shape] | None:
        shapes: list[Shape] = []
        large = 0
        while len(shapes) < count:
            size = "small" if large >= (count if count < 4 else 2) else self.rng.choice(("small", "large"))
            shape = self._place(size, shapes)
            if shape is None:
                return None
            large += size == "large"
            shapes.append(shape)
            self.taken.append(shape.box)
        return sorted(shapes, key=lambda shape: shape.centre.x)

    def _place(self, size: str, shapes: Sequence[Shape]) -> Shape | None:
        for _ in range(30):
            box = self._anywhere(size)
            name = self.rng.choice(KINDS), self.rng.choice(list(COLOURS))
            if any(_touch(box, other) for other in self.taken) or _doubtful(middle(box)):
                continue
            shape = self._shape(*name, size, box)
            if not {shape.name, shape.region} & {fact for other in shapes for fact in (other.name, other.region)}:
                return shape
        return None

    def _nested(self) -> list[Shape]:
        """A small shape within a large one."""
        rng = self.rng
        outer_box = self._anywhere("large", least=0.9)
        centre = middle(outer_box)
        width, height = self._extent(rng.uniform(0.14, 0.17))
        x, y = (value + rng.uniform(-0.01, 0.01) for value in (centre.x, centre.y))
        first, second = rng.sample(list(COLOURS), 2)
        outer = self._shape(rng.choice(("circle", "square", "diamond")), first, "large", outer_box)
        box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return [outer, self._shape(rng.choice(KINDS), second, "small", box)]

    def _shape(self, kind: str, colour: str, size: str, box: Box) -> Shape:
        return Shape(kind, colour, jittered(self.rng, COLOURS[colour], 13), size, box)

    def _anywhere(self, size: str, least: float = 0.0) -> Box:
        low, high = _SIDES[size]
        width, height = self._extent(self.rng.uniform(low + least * (high - low), high))
        x, y = (self.rng.uniform(side / 2 + 0.01, 0.99 - side / 2) for side in (width, height))
        return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def _extent(self, side: float) -> tuple[float, float]:
        """Width and height in the image of something that is ``side`` wide and high, roughly."""
        stretch = math.sqrt(self.aspect * self.rng.uniform(0.85, 1.18))
        return side / stretch, side * stretch

    def word(self, background: str) -> Word | None:
        """A word somewhere, or None where it does not fit the image."""
        rng = self.rng
        text = rng.choice(KNOWN_WORDS) if rng.random() < 0.25 else _letters(rng)
        stroke = rng.choice((0.0, 0.02, 0.04))
        space = room(text, stroke)
        widest = 0.94 * math.sqrt(self.aspect) / space.width
        em = min(rng.uniform(0.22, 0.34), widest)
        return None if em < 0.18 else self._written(text, em, stroke, space, background)

    def _written(self, text: str, em: float, stroke: float, space: Extent, background: str) -> Word | None:
        """A word somewhere; its box is that of its ink."""
        stretch = math.sqrt(self.aspect)
        across, down = em / stretch, em * stretch
        width, height = across * space.width, down * space.height
        if width > 0.96 or height > 0.9:
            return None
        x, y = self.rng.uniform(0.02, 0.98 - width), self.rng.uniform(0.02, 0.98 - height)
        black = ink(text, stroke)
        left, top = x + across * (black.left - space.left), y + down * (black.top - space.top)
        box = Box(left, top, left + across * black.width, top + down * black.height)
        return Word(text, box, em, stroke, background != "black")


def _letters(rng: random.Random) -> str:
    """Two to five random letters without a repeated run of three."""
    while True:
        text = "".join(rng.choices(_LETTERS, k=rng.choices((2, 3, 4, 5), (1, 3, 3, 2))[0]))
        runs = [text[index : index + 3] for index in range(len(text) - 2)]
        if len(set(runs)) == len(runs):
            return text


def jittered(rng: random.Random, colour: Colour, reach: int) -> Colour:
    """A shade of ``colour``, each channel at most ``reach`` levels away."""
    red, green, blue = (min(255, max(0, value + rng.randint(-reach, reach))) for value in colour)
    return red, green, blue


def _touch(one: Box, other: Box, margin: float = 0.02) -> bool:
    apart = (
        one.x_max + margin < other.x_min, other.x_max + margin < one.x_min,
        one.y_max + margin < other.y_min, other.y_max + margin < one.y_min,
    )  # fmt: skip
    return not any(apart)


def _doubtful(place: Point) -> bool:
    """Whether a place is too near an edge between two regions to say which one it is in."""
    return any(abs(value - edge) < 0.025 for value in (place.x, place.y) for edge in THIRDS)


def _tellable(shapes: Sequence[Shape], inside: bool) -> bool:
    """Whether the order from left to right, and the relation of two shapes, are beyond doubt."""
    centres = [shape.centre for shape in shapes]
    if inside:
        return not _doubtful(centres[0])
    steps = [(right.x - left.x, abs(right.y - left.y)) for left, right in pairwise(centres)]
    if len(shapes) == 2:
        across, down = steps[0]
        return abs(across - down) >= 0.06
    return all(across >= 0.03 for across, _ in steps)
