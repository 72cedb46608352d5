"""Florence-2's evaluation: its fifteen tasks on one scene, each with the scorer that fits its kind of answer."""

from __future__ import annotations

import random
from collections.abc import Iterator

from training.data.scenes import Scene, Shape
from training.data.sentences import caption, dense
from training.data.world import KNOWN_WORDS
from training.evaluation.metrics import Item, LabelledBox, Row, Scorer, box_f1, exact_text, letters, polygon_overlap
from training.florence2.tasks import Example, available_tasks, box_tokens, make_example
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
    """A request for every task that the scene has an answer to, by the model's own prompts."""
    for token in available_tasks(scene):
        if token == "<OCR>" and scene.word and scene.word.text in KNOWN_WORDS:
            continue
        example = make_example(token, scene, rng)
        yield Item(Request(image, token + example.argument), {_ROW_OF[token]: _scorer(example, scene)})


def _scorer(example: Example, scene: Scene) -> Scorer:
    text = example.answer.split("<loc_")[0]
    match example.token:
        case (
            "<CAPTION>" | "<DETAILED_CAPTION>" | "<MORE_DETAILED_CAPTION>"
            | "<REGION_TO_CATEGORY>" | "<REGION_TO_DESCRIPTION>"
        ):  # fmt: skip
            return exact_text(text)
        case "<OCR>" | "<REGION_TO_OCR>":
            return lambda answer: letters(answer.text, text)
        case "<REFERRING_EXPRESSION_SEGMENTATION>" | "<REGION_TO_SEGMENTATION>":
            shape = _segmented_shape(example, scene)
            return lambda answer: polygon_overlap(
                [polygon for one in answer.detections for polygon in one.polygons or ()], shape.polygon
            )
    expected = _expected_boxes(example, scene)
    return lambda answer: box_f1(answer.labelled_boxes, expected)


def _expected_boxes(example: Example, scene: Scene) -> list[LabelledBox]:
    shapes, label = scene.shapes, example.argument
    match example.token:
        case "<OD>":
            return [(shape.kind, shape.box) for shape in shapes]
        case "<DENSE_REGION_CAPTION>":
            return [(dense(shape), shape.box) for shape in shapes]
        case "<REGION_PROPOSAL>":
            return [("", shape.box) for shape in shapes]
        case "<OPEN_VOCABULARY_DETECTION>":
            return [(label, shape.box) for shape in shapes if label in (shape.name, shape.kind)]
        case "<OCR_WITH_REGION>":
            assert scene.word is not None, "this task needs a scene with a word"
            return [(scene.word.text, scene.word.box)]
    return [(part.text, part.thing.box) for part in caption(scene) if part.thing is not None]


def _segmented_shape(example: Example, scene: Scene) -> Shape:
    """The shape that a segmentation is about: the argument is its name, or the location tokens of its box."""
    return next(shape for shape in scene.shapes if example.argument in (shape.name, box_tokens(shape.box)))
