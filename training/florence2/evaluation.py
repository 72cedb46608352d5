"""Florence-2's examination: its fifteen tasks on one scene, each marked by what the task is about."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from training.data.scenes import Scene, Shape
from training.data.sentences import caption, dense
from training.data.world import KNOWN_WORDS
from training.evaluation.metrics import Answer, Item, Labelled, Mark, Row, exactly, found, letters, polygon_overlap
from training.florence2.tasks import Exercise, exercise, located, offered
from vlm.types import Request

_ROW_OF = {
    "<CAPTION>": "caption, exact", "<DETAILED_CAPTION>": "detailed caption, exact",
    "<MORE_DETAILED_CAPTION>": "paragraph, exact", "<OD>": "detection, F1",
    "<DENSE_REGION_CAPTION>": "dense captions, F1",
    "<REGION_PROPOSAL>": "region proposals, F1", "<CAPTION_TO_PHRASE_GROUNDING>": "phrase grounding, F1",
    "<OPEN_VOCABULARY_DETECTION>": "open-vocabulary detection, F1", "<REGION_TO_CATEGORY>": "region to category",
    "<REGION_TO_DESCRIPTION>": "region to description", "<OCR>": "letters of unseen words",
    "<OCR_WITH_REGION>": "words with regions, F1", "<REGION_TO_OCR>": "region to word, letters",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "segmentation by phrase, IoU",
    "<REGION_TO_SEGMENTATION>": "segmentation of a region, IoU",
}  # fmt: skip
_TARGETS = {
    "<CAPTION>": 0.9, "<DETAILED_CAPTION>": 0.85, "<OD>": 0.95, "<DENSE_REGION_CAPTION>": 0.9,
    "<CAPTION_TO_PHRASE_GROUNDING>": 0.93, "<OPEN_VOCABULARY_DETECTION>": 0.93, "<REGION_TO_CATEGORY>": 0.95,
    "<REGION_TO_DESCRIPTION>": 0.95, "<OCR>": 0.9, "<REFERRING_EXPRESSION_SEGMENTATION>": 0.7,
    "<REGION_TO_SEGMENTATION>": 0.7,
}  # fmt: skip
ROWS = tuple(Row(name, _TARGETS.get(token)) for token, name in _ROW_OF.items())


def items(scene: Scene, image: bytes, rng: random.Random) -> Iterator[Item]:
    """Every task that the scene offers, by the model's own prompts."""
    for token in offered(scene):
        if token == "<OCR>" and scene.word and scene.word.text in KNOWN_WORDS:
            continue
        asked = exercise(token, scene, rng)
        yield Item(Request(image, token + asked.argument), {_ROW_OF[token]: _marker(asked, scene)})


def _marker(asked: Exercise, scene: Scene) -> Callable[[Answer], Mark]:
    words = asked.answer.split("<loc_")[0]
    match asked.token:
        case (
            "<CAPTION>" | "<DETAILED_CAPTION>" | "<MORE_DETAILED_CAPTION>"
            | "<REGION_TO_CATEGORY>" | "<REGION_TO_DESCRIPTION>"
        ):  # fmt: skip
            return exactly(words)
        case "<OCR>" | "<REGION_TO_OCR>":
            return lambda answer: letters(answer.text, words)
        case "<REFERRING_EXPRESSION_SEGMENTATION>" | "<REGION_TO_SEGMENTATION>":
            shape = _meant(asked, scene)
            return lambda answer: polygon_overlap(
                [one for each in answer.detections for one in each.polygons or ()], shape.polygon
            )
    wanted = _wanted(asked, scene)
    return lambda answer: found(answer.labelled, wanted)


def _wanted(asked: Exercise, scene: Scene) -> list[Labelled]:
    shapes, words = scene.shapes, asked.argument
    match asked.token:
        case "<OD>":
            return [(shape.kind, shape.box) for shape in shapes]
        case "<DENSE_REGION_CAPTION>":
            return [(dense(shape), shape.box) for shape in shapes]
        case "<REGION_PROPOSAL>":
            return [("", shape.box) for shape in shapes]
        case "<OPEN_VOCABULARY_DETECTION>":
            return [(words, shape.box) for shape in shapes if words in (shape.name, shape.kind)]
        case "<OCR_WITH_REGION>":
            assert scene.word is not None, "asked of scenes with a word only"
            return [(scene.word.text, scene.word.box)]
    return [(part.text, part.thing.box) for part in caption(scene) if part.thing is not None]


def _meant(asked: Exercise, scene: Scene) -> Shape:
    """The shape that a segmentation is about: by its name, or as its box is the region."""
    return next(shape for shape in scene.shapes if asked.argument in (shape.name, located(shape.box)))
