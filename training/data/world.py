"""The synthetic world: every seed has one scene of coloured shapes and short words, always the same.

Chooses how many things a scene has, which and where, so that questions about it have one right answer. The order of the
calls to the random generator is part of the world: another order gives other images and vocabularies, which do not fit
trained weights.
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
"""Seeds from here on are for evaluation only; training uses those below."""

SMALLEST_SIDE, LARGEST_SIDE = 64, 1600
"""Of an image, in pixels."""

KNOWN_WORDS = (
    "STOP", "EXIT", "OPEN", "SALE", "TAXI", "CAFE", "BANK", "HOTEL", "PARK", "SHOP",
    "GATE", "FIRE", "HELP", "LOVE", "NEWS", "FOOD", "GOLD", "BUS", "ZOO", "BAR",
)  # fmt: skip
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SIDES = {"small": (0.17, 0.22), "large": (0.31, 0.41)}  # in units of the square root of the image's area


def scene(seed: int, size: tuple[int, int] | None = None) -> Scene:
    """The scene of a seed, always the same one. With a ``size`` (width, height) it is another scene, of that size."""
    rng = random.Random(seed)
    plan = _plan(rng)  # outside the loop: or crowded scenes, which often fail to fit, would become rare
    while True:
        finished = Draft(rng, size).scene(plan)
        if finished is not None:
            return finished


@dataclass(frozen=True)
class _Plan:
    """What a scene will contain, before anything has a position."""

    count: int
    word: bool
    inside: bool


def _plan(rng: random.Random) -> _Plan:
    choice = rng.random()
    if choice < 0.32:
        return _Plan(rng.choices((0, 1, 2), (35, 45, 20))[0], word=True, inside=False)
    if choice < 0.36:
        return _Plan(2, word=False, inside=True)
    return _Plan(rng.choices((1, 2, 3, 4, 5), (26, 34, 22, 11, 7))[0], word=False, inside=False)


class Draft:
    """One attempt at a scene, which fails if things do not fit or if a description of them would be ambiguous."""

    def __init__(self, rng: random.Random, size: tuple[int, int] | None = None) -> None:
        self.rng, self.size = rng, size
        self.aspect = size[0] / size[1] if size else math.exp(rng.triangular(-math.log(2), math.log(2), 0.0))
        self.taken: list[Box] = []

    def scene(self, plan: _Plan) -> Scene | None:
        """A scene by the plan; None if the attempt fails."""
        background = self.background()
        word = self.word(background) if plan.word else None
        if word is None and plan.word:
            return None
        if word:
            self.reserve(word.box)
        shapes = self._nested() if plan.inside else self._row(plan.count)
        if shapes is None or not _is_unambiguous(shapes, plan.inside):
            return None
        return self.finished(background, shapes, (word,) if word else (), inside=plan.inside)

    def background(self) -> str:
        """The name of a background, chosen at random."""
        return self.rng.choice(list(BACKGROUNDS))

    def reserve(self, box: Box) -> bool:
        """Reserve a box unless something is near it; returns whether it was free."""
        free = not any(are_near(box, other) for other in self.taken)
        if free:
            self.taken.append(box)
        return free

    def finished(
        self, background: str, shapes: Sequence[Shape], words: Sequence[Word], *, inside: bool = False
    ) -> Scene:
        """The scene; chooses the image's size, shade and texture last."""
        width, height = self.size or self._any_size()
        shade = jittered(self.rng, BACKGROUNDS[background], 7)
        word, more = (words[0], tuple(words[1:])) if words else (None, ())
        return Scene(width, height, tuple(shapes), word, background, shade, self._texture(), inside, more)

    def _any_size(self) -> tuple[int, int]:
        """Small images are rarer than large ones: few details are visible on 64 pixels."""
        stretch = max(self.aspect, 1 / self.aspect)
        log_range = math.log(LARGEST_SIDE / stretch / SMALLEST_SIDE)
        short = SMALLEST_SIDE * math.exp(log_range * max(self.rng.random(), self.rng.random()))
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
            shape = self._positioned_shape(size, shapes)
            if shape is None:
                return None
            large += size == "large"
            shapes.append(shape)
            self.taken.append(shape.box)
        return sorted(shapes, key=lambda shape: shape.centre.x)

    def _positioned_shape(self, size: str, shapes: Sequence[Shape]) -> Shape | None:
        for _ in range(30):
            box = self.random_box(size)
            name = self.rng.choice(KINDS), self.rng.choice(list(COLOURS))
            if any(are_near(box, other) for other in self.taken) or _is_near_border(middle(box)):
                continue
            shape = self.shape(*name, size, box)
            if not {shape.name, shape.region} & {fact for other in shapes for fact in (other.name, other.region)}:
                return shape
        return None

    def _nested(self) -> list[Shape]:
        """A large shape and a small one within it."""
        rng = self.rng
        outer_box = self.random_box("large", min_share=0.9)
        centre = middle(outer_box)
        width, height = self._extent(rng.uniform(0.14, 0.17))
        x, y = (value + rng.uniform(-0.01, 0.01) for value in (centre.x, centre.y))
        first, second = rng.sample(list(COLOURS), 2)
        outer = self.shape(rng.choice(("circle", "square", "diamond")), first, "large", outer_box)
        box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return [outer, self.shape(rng.choice(KINDS), second, "small", box)]

    def shape(self, kind: str, colour: str, size: str, box: Box) -> Shape:
        """A shape in a shade near its colour's."""
        return Shape(kind, colour, jittered(self.rng, COLOURS[colour], 13), size, box)

    def random_box(self, size: str, min_share: float = 0.0) -> Box:
        """The box of a ``"small"`` or ``"large"`` shape, anywhere in the image."""
        low, high = _SIDES[size]
        width, height = self._extent(self.rng.uniform(low + min_share * (high - low), high))
        x, y = (self.rng.uniform(side / 2 + 0.01, 0.99 - side / 2) for side in (width, height))
        return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def _extent(self, side: float) -> tuple[float, float]:
        """Normalised width and height of something whose sides are roughly ``side``, in units as in ``_SIDES``."""
        stretch = math.sqrt(self.aspect * self.rng.uniform(0.85, 1.18))
        return side / stretch, side * stretch

    def word(self, background: str) -> Word | None:
        """A word at a random position, or None if it does not fit the image."""
        rng = self.rng
        text = rng.choice(KNOWN_WORDS) if rng.random() < 0.25 else _letters(rng)
        stroke = rng.choice((0.0, 0.02, 0.04))
        space = room(text, stroke)
        widest = 0.94 * math.sqrt(self.aspect) / space.width
        em = min(rng.uniform(0.22, 0.34), widest)
        return None if em < 0.18 else self._positioned_word(text, em, stroke, space, background)

    def _positioned_word(self, text: str, em: float, stroke: float, space: Extent, background: str) -> Word | None:
        """The word at a random position, with the tight box around its ink."""
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
    """Two to five random letters without a repeated trigram."""
    while True:
        text = "".join(rng.choices(_LETTERS, k=rng.choices((2, 3, 4, 5), (1, 3, 3, 2))[0]))
        trigrams = [text[index : index + 3] for index in range(len(text) - 2)]
        if len(set(trigrams)) == len(trigrams):
            return text


def jittered(rng: random.Random, colour: Colour, reach: int) -> Colour:
    """A shade of ``colour`` whose channels differ by at most ``reach`` levels."""
    red, green, blue = (min(255, max(0, value + rng.randint(-reach, reach))) for value in colour)
    return red, green, blue


def are_near(one: Box, other: Box, margin: float = 0.02) -> bool:
    """Whether two boxes overlap or have less than ``margin`` between them."""
    apart = (
        one.x_max + margin < other.x_min, other.x_max + margin < one.x_min,
        one.y_max + margin < other.y_min, other.y_max + margin < one.y_min,
    )  # fmt: skip
    return not any(apart)


def _is_near_border(point: Point) -> bool:
    """Whether a point is so near the border of two regions that it is unclear which one it is in."""
    return any(abs(value - edge) < 0.025 for value in (point.x, point.y) for edge in THIRDS)


def _is_unambiguous(shapes: Sequence[Shape], inside: bool) -> bool:
    """Whether the order of the shapes from left to right, or the relation of two, is unmistakable."""
    centres = [shape.centre for shape in shapes]
    if inside:
        return not _is_near_border(centres[0])
    steps = [(right.x - left.x, abs(right.y - left.y)) for left, right in pairwise(centres)]
    if len(shapes) == 2:
        across, down = steps[0]
        return abs(across - down) >= 0.06
    return all(across >= 0.03 for across, _ in steps)
