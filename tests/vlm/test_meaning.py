"""The bundled miniatures describe an image correctly, at a size that did not occur in their training."""

from __future__ import annotations

import pytest

from tests.images import hand_drawn
from tests.oracle import MINIATURES, ask_all
from training.evaluation.metrics import overlap
from vlm.types import Box, Completion, Request, Task

DRAWN = {
    "circle": Box(75 / 640, 135 / 480, 265 / 640, 325 / 480),
    "square": Box(390 / 640, 150 / 480, 560 / 640, 320 / 480),
}
SIZES = [(640, 480), (1200, 800), (320, 320)]


def assert_boxes(answer: Completion, least: float) -> None:
    """A box for each of the shapes, in their order, that overlaps it by ``least``."""
    for found, box in zip(answer.grounding.detections, DRAWN.values(), strict=True):
        assert found.box is not None
        assert overlap(found.box, box) >= least


def assert_points(answer: Completion) -> None:
    """A point within each of the shapes, in their order."""
    for found, box in zip(answer.grounding.detections, DRAWN.values(), strict=True):
        assert found.point is not None
        assert box.x_min < found.point.x < box.x_max
        assert box.y_min < found.point.y < box.y_max


@pytest.mark.parametrize("size", SIZES)
def test_blip_names_the_shapes_and_their_order(size: tuple[int, int]) -> None:
    image = hand_drawn(*size)
    plain, continued = ask_all(MINIATURES / "blip-large", [Request(image), Request(image, "a picture of")])
    assert plain.text == "a red circle left of a blue square"
    assert continued.text == "a picture of a red circle left of a blue square"


@pytest.mark.parametrize("size", SIZES)
def test_florence_finds_both_shapes(size: tuple[int, int]) -> None:
    [answer] = ask_all(MINIATURES / "florence-2-base", [Request(hand_drawn(*size), "<OD>")])
    found = {detection.label: detection.box for detection in answer.grounding.detections}
    assert set(found) == set(DRAWN)
    for label, box in found.items():
        assert box is not None
        assert overlap(box, DRAWN[str(label)]) >= 0.9


def test_florence_grounds_the_phrases_of_a_caption() -> None:
    text = "a red circle left of a blue square"
    request = Request(hand_drawn(), task=Task("ground", text=text))
    [answer] = ask_all(MINIATURES / "florence-2-base", [request])
    phrases = {text[start:end] for found in answer.grounding.detections for start, end in found.spans}
    assert phrases == {"a red circle", "a blue square"}
    assert_boxes(answer, 0.9)


@pytest.mark.parametrize("size", SIZES)
def test_kosmos_ties_the_words_of_its_caption_to_locations(size: tuple[int, int]) -> None:
    image = hand_drawn(*size)
    caption, count, region = ask_all(
        MINIATURES / "kosmos-2",
        [
            Request(image, "<grounding>An image of"),
            Request(image, "How many shapes are there?"),
            Request(image, task=Task("region_caption", region=DRAWN["circle"])),
        ],
    )
    assert caption.text == "An image of a red circle left of one blue square."  # the trigram ban turns "a" into "one"
    for found, name in zip(caption.grounding.detections, DRAWN, strict=True):
        assert [caption.text[start:end] for start, end in found.spans] == [found.label]
        assert found.label is not None
        assert name in found.label
        assert found.box is not None
        assert overlap(found.box, DRAWN[name]) >= 0.7  # it gives locations in a grid of 32 x 32 cells
    assert (count.text, region.text) == ("two.", "It is a red circle.")


@pytest.mark.parametrize("size", SIZES)
def test_kosmos_finds_what_a_phrase_names(size: tuple[int, int]) -> None:
    asked = [
        Request(hand_drawn(*size), task=Task("ground", text=phrase)) for phrase in ("a red circle", "a blue square")
    ]
    for answer, box in zip(ask_all(MINIATURES / "kosmos-2", asked), DRAWN.values(), strict=True):
        [found] = answer.grounding.detections
        assert found.box is not None
        assert overlap(found.box, box) >= 0.6


@pytest.mark.parametrize("size", SIZES)
def test_moondream_describes_and_counts(size: tuple[int, int]) -> None:
    image = hand_drawn(*size)
    caption, count, relation = ask_all(
        MINIATURES / "moondream-2",
        [
            Request(image, task=Task("caption", length="short")),
            Request(image, "How many shapes are there?"),
            Request(image, "What is left of the blue square?"),
        ],
    )
    told = (caption.text, count.text, relation.text)
    assert told == ("a red circle left of a blue square", "two", "a red circle")


@pytest.mark.parametrize("labels", [("circle", "square"), ("red circle", "blue square")])
@pytest.mark.parametrize("size", SIZES)
def test_moondream_finds_and_points_at_both_shapes(size: tuple[int, int], labels: tuple[str, ...]) -> None:
    tasks = [Task(name, labels=labels) for name in ("detect", "point")]
    boxes, points = ask_all(MINIATURES / "moondream-2", [Request(hand_drawn(*size), task=task) for task in tasks])
    for answer in (boxes, points):
        assert [found.label for found in answer.grounding.detections] == list(labels)
    assert_boxes(boxes, 0.7)
    assert_points(points)


@pytest.mark.parametrize("size", SIZES)
def test_moondream_counts_aloud_what_it_points_at(size: tuple[int, int]) -> None:
    task = Task("query", text="How many shapes are there?", reasoning=True)
    [answer] = ask_all(MINIATURES / "moondream-2", [Request(hand_drawn(*size), task=task)])
    assert answer.text == "two"
    assert [found.label for found in answer.grounding.detections] == ["red circle", "blue square"]
    assert_points(answer)
