"""Florence-2's fifteen tasks in the world of shapes: what is asked about a scene, and the text that answers it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from training.data import sentences
from training.data.scenes import Scene, Shape
from vlm.models.florence2.tasks import BY_TOKEN
from vlm.models.florence2.vocabulary import BINS
from vlm.types import Box, Point

WEIGHTS: Mapping[str, float] = MappingProxyType({
    "<CAPTION>": 3, "<DETAILED_CAPTION>": 3, "<MORE_DETAILED_CAPTION>": 1, "<OD>": 2.5, "<DENSE_REGION_CAPTION>": 2,
    "<REGION_PROPOSAL>": 1, "<CAPTION_TO_PHRASE_GROUNDING>": 2, "<OPEN_VOCABULARY_DETECTION>": 2,
    "<REGION_TO_CATEGORY>": 1, "<REGION_TO_DESCRIPTION>": 2, "<REFERRING_EXPRESSION_SEGMENTATION>": 2,
    "<REGION_TO_SEGMENTATION>": 2, "<OCR>": 4, "<OCR_WITH_REGION>": 4, "<REGION_TO_OCR>": 2,
})  # fmt: skip
"""How often each task is asked, relative to the others that a scene offers."""

_ANY = ("<CAPTION>", "<DETAILED_CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>")
_WITH_SHAPES = (
    "<MORE_DETAILED_CAPTION>", "<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<OPEN_VOCABULARY_DETECTION>",
    "<REGION_TO_CATEGORY>", "<REGION_TO_DESCRIPTION>", "<REFERRING_EXPRESSION_SEGMENTATION>",
    "<REGION_TO_SEGMENTATION>",
)  # fmt: skip
_WITH_WORD = ("<OCR>", "<OCR_WITH_REGION>", "<REGION_TO_OCR>")


@dataclass(frozen=True)
class Exercise:
    """One task on one scene: its token, what stands after the token in a prompt, and the answer."""

    token: str
    argument: str
    answer: str

    @property
    def prompt(self) -> str:
        """What the model reads."""
        return BY_TOKEN[self.token].prompt(self.argument)


def offered(scene: Scene) -> tuple[str, ...]:
    """The tokens of the tasks that can be asked about a scene."""
    return (*_ANY, *(_WITH_SHAPES if scene.shapes else ()), *(_WITH_WORD if scene.word else ()))


def chosen(scene: Scene, count: int, rng: random.Random) -> list[Exercise]:
    """So many exercises, different ones while there are enough."""
    left = list(offered(scene))
    picked: list[str] = []
    while len(picked) < count:
        token = rng.choices(left, [WEIGHTS[one] for one in left])[0]
        picked.append(token)
        if len(left) > 1:
            left.remove(token)
    return [exercise(token, scene, rng) for token in picked]


def exercise(token: str, scene: Scene, rng: random.Random) -> Exercise:
    """A task asked about a scene; where it is about one shape, ``rng`` chooses which."""
    if token in _WITH_WORD:
        return Exercise(token, *_about_word(token, scene))
    if token in _WITH_SHAPES and token not in _ABOUT_ALL:
        return Exercise(token, *_about_one(token, scene, rng.choice(scene.shapes), rng))
    return Exercise(token, *_about_all(token, scene))


_ABOUT_ALL = ("<MORE_DETAILED_CAPTION>", "<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>")


def _about_all(token: str, scene: Scene) -> tuple[str, str]:
    caption = sentences.caption(scene)
    if token == "<CAPTION_TO_PHRASE_GROUNDING>":
        named = "".join(part.text + located(part.thing.box) for part in caption if part.thing is not None)
        return sentences.plain(caption), named
    return "", _told(token, scene)


def _told(token: str, scene: Scene) -> str:
    match token:
        case "<DETAILED_CAPTION>":
            return sentences.detailed(scene)
        case "<MORE_DETAILED_CAPTION>":
            return sentences.paragraph(scene)
        case "<OD>":
            return grouped((shape.kind, shape.box) for shape in scene.shapes)
        case "<DENSE_REGION_CAPTION>":
            return grouped((sentences.dense(shape), shape.box) for shape in scene.shapes)
        case "<REGION_PROPOSAL>":
            return "".join(located(shape.box) for shape in scene.shapes)
    return sentences.plain(sentences.caption(scene))


def _about_one(token: str, scene: Scene, shape: Shape, rng: random.Random) -> tuple[str, str]:
    place = located(shape.box)
    match token:
        case "<REGION_TO_CATEGORY>":
            return place, shape.kind + place
        case "<REGION_TO_DESCRIPTION>":
            return place, sentences.dense(shape) + place
        case "<REGION_TO_SEGMENTATION>":
            return place, outlined(shape.polygon)
        case "<REFERRING_EXPRESSION_SEGMENTATION>":
            return shape.name, outlined(shape.polygon)
    if rng.random() < 0.5:
        return shape.name, shape.name + place
    return shape.kind, grouped((other.kind, other.box) for other in scene.shapes if other.kind == shape.kind)


def _about_word(token: str, scene: Scene) -> tuple[str, str]:
    word = scene.word
    assert word is not None, "asked of scenes with a word only"
    if token == "<OCR_WITH_REGION>":
        return "", word.text + outlined(word.quad)
    return located(word.box) if token == "<REGION_TO_OCR>" else "", word.text


def grouped(labelled: Iterable[tuple[str, Box]]) -> str:
    """Boxes after their labels; boxes of one label stand together."""
    groups: dict[str, list[str]] = {}
    for text, box in labelled:
        groups.setdefault(text, []).append(located(box))
    return "".join(text + "".join(boxes) for text, boxes in groups.items())


def located(box: Box) -> str:
    """The four location tokens of a box."""
    return _bins((box.x_min, box.y_min, box.x_max, box.y_max))


def outlined(corners: Sequence[Point]) -> str:
    """Two location tokens a corner."""
    return _bins([value for corner in corners for value in (corner.x, corner.y)])


def _bins(values: Sequence[float]) -> str:
    return "".join(f"<loc_{min(BINS - 1, max(0, int(value * BINS)))}>" for value in values)
