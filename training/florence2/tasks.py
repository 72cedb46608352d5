"""Florence-2's fifteen tasks in the world of shapes: the argument of a task about a scene, and the expected answer."""

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
"""The relative probability of each task among those that are available for a scene."""

_ALWAYS = ("<CAPTION>", "<DETAILED_CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>")
_WITH_SHAPES = (
    "<MORE_DETAILED_CAPTION>", "<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<OPEN_VOCABULARY_DETECTION>",
    "<REGION_TO_CATEGORY>", "<REGION_TO_DESCRIPTION>", "<REFERRING_EXPRESSION_SEGMENTATION>",
    "<REGION_TO_SEGMENTATION>",
)  # fmt: skip
_WITH_WORD = ("<OCR>", "<OCR_WITH_REGION>", "<REGION_TO_OCR>")
_ABOUT_ALL_SHAPES = ("<MORE_DETAILED_CAPTION>", "<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>")


@dataclass(frozen=True)
class Example:
    """One task on one scene: its token, the text after the token in the prompt, and the expected answer."""

    token: str
    argument: str
    answer: str

    @property
    def prompt(self) -> str:
        """The text that the encoder reads."""
        return BY_TOKEN[self.token].prompt(self.argument)


def available_tasks(scene: Scene) -> tuple[str, ...]:
    """The tokens of the tasks that have an answer for this scene."""
    return (*_ALWAYS, *(_WITH_SHAPES if scene.shapes else ()), *(_WITH_WORD if scene.word else ()))


def sample_examples(scene: Scene, count: int, rng: random.Random) -> list[Example]:
    """``count`` examples by their weights, of different tasks as long as there are enough."""
    remaining = list(available_tasks(scene))
    sampled: list[str] = []
    while len(sampled) < count:
        token = rng.choices(remaining, [WEIGHTS[one] for one in remaining])[0]
        sampled.append(token)
        if len(remaining) > 1:
            remaining.remove(token)
    return [make_example(token, scene, rng) for token in sampled]


def make_example(token: str, scene: Scene, rng: random.Random) -> Example:
    """An example of a task; if the task is about one shape, ``rng`` chooses which."""
    if token in _WITH_WORD:
        return Example(token, *_about_word(token, scene))
    if token in _WITH_SHAPES and token not in _ABOUT_ALL_SHAPES:
        return Example(token, *_about_one_shape(token, scene, rng.choice(scene.shapes), rng))
    return Example(token, *_about_scene(token, scene))


# Each of these returns (argument, answer).


def _about_scene(token: str, scene: Scene) -> tuple[str, str]:
    caption = sentences.caption(scene)
    if token == "<CAPTION_TO_PHRASE_GROUNDING>":
        phrases = "".join(part.text + box_tokens(part.thing.box) for part in caption if part.thing is not None)
        return sentences.plain(caption), phrases
    return "", _scene_answer(token, scene)


def _scene_answer(token: str, scene: Scene) -> str:
    match token:
        case "<DETAILED_CAPTION>":
            return sentences.detailed(scene)
        case "<MORE_DETAILED_CAPTION>":
            return sentences.paragraph(scene)
        case "<OD>":
            return grouped_boxes((shape.kind, shape.box) for shape in scene.shapes)
        case "<DENSE_REGION_CAPTION>":
            return grouped_boxes((sentences.dense(shape), shape.box) for shape in scene.shapes)
        case "<REGION_PROPOSAL>":
            return "".join(box_tokens(shape.box) for shape in scene.shapes)
    return sentences.plain(sentences.caption(scene))


def _about_one_shape(token: str, scene: Scene, shape: Shape, rng: random.Random) -> tuple[str, str]:
    box = box_tokens(shape.box)
    match token:
        case "<REGION_TO_CATEGORY>":
            return box, shape.kind + box
        case "<REGION_TO_DESCRIPTION>":
            return box, sentences.dense(shape) + box
        case "<REGION_TO_SEGMENTATION>":
            return box, polygon_tokens(shape.polygon)
        case "<REFERRING_EXPRESSION_SEGMENTATION>":
            return shape.name, polygon_tokens(shape.polygon)
    if rng.random() < 0.5:
        return shape.name, shape.name + box
    return shape.kind, grouped_boxes((other.kind, other.box) for other in scene.shapes if other.kind == shape.kind)


def _about_word(token: str, scene: Scene) -> tuple[str, str]:
    word = scene.word
    assert word is not None, "this task needs a scene with a word"
    if token == "<OCR_WITH_REGION>":
        return "", word.text + polygon_tokens(word.quad)
    return box_tokens(word.box) if token == "<REGION_TO_OCR>" else "", word.text


def grouped_boxes(labelled: Iterable[tuple[str, Box]]) -> str:
    """Each label once, followed by the location tokens of all its boxes."""
    groups: dict[str, list[str]] = {}
    for text, box in labelled:
        groups.setdefault(text, []).append(box_tokens(box))
    return "".join(text + "".join(boxes) for text, boxes in groups.items())


def box_tokens(box: Box) -> str:
    """The four location tokens of a box."""
    return _location_tokens((box.x_min, box.y_min, box.x_max, box.y_max))


def polygon_tokens(corners: Sequence[Point]) -> str:
    """Two location tokens for each corner."""
    return _location_tokens([value for corner in corners for value in (corner.x, corner.y)])


def _location_tokens(values: Sequence[float]) -> str:
    return "".join(f"<loc_{min(BINS - 1, max(0, int(value * BINS)))}>" for value in values)
