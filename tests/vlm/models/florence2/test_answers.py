"""Answers that the miniature really gives, read by us and by transformers' post-processing."""

from __future__ import annotations

import asyncio
import re
from functools import cache
from itertools import chain
from typing import Any

import pytest

from tests.images import scenes
from tests.oracle import MINIATURES, ask_all, miniature_oracle
from vlm.engine.engine import Engine
from vlm.loading import load
from vlm.models.florence2.tasks import BY_TOKEN
from vlm.types import Box, Chunk, Completion, Detection, Point, Request, Sampling, Task

FOLDER = MINIATURES / "florence-2-base"
SIZE = (1000, 1000)  # one pixel a bin
REGION = "<loc_100><loc_100><loc_500><loc_600>"
SHAPES = {
    "<DENSE_REGION_CAPTION>": "",
    "<REGION_PROPOSAL>": "",
    "<OPEN_VOCABULARY_DETECTION>": "a circle",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "a red square",
    "<REGION_TO_SEGMENTATION>": REGION,
}
WORDS = dict.fromkeys(("<REGION_TO_CATEGORY>", "<REGION_TO_DESCRIPTION>", "<REGION_TO_OCR>"), REGION)
COUNT = 12


@cache
def answered() -> dict[str, list[Completion]]:
    """All new tasks on the same scenes, in one engine."""
    prompts = [token + argument for token, argument in (SHAPES | WORDS).items()]
    how = Sampling(max_tokens=80, num_beams=1)  # a search finds less that is malformed
    asked = [Request(image, prompt, sampling=how) for prompt in prompts for image in scenes(COUNT, first=700)]
    given = ask_all(FOLDER, asked)
    return {
        token: given[start : start + COUNT] for token, start in zip(SHAPES | WORDS, range(0, 999, COUNT), strict=False)
    }


def reference(answer: Completion) -> Any:
    processor = miniature_oracle("florence-2-base").processor
    text = processor.decode(answer.token_ids, skip_special_tokens=False)
    task = answer.grounding.native_task
    return processor.post_process_generation(text=text, task=task, image_size=SIZE)[task]


def pixels(points: tuple[Point, ...]) -> list[int]:
    return [int(value * 1000) for point in points for value in (point.x, point.y)]


def bounds(box: Box | None) -> list[int]:
    assert box is not None
    return pixels((Point(box.x_min, box.y_min), Point(box.x_max, box.y_max)))


def upright(box: list[int]) -> list[int]:
    return [*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])]


def found(answer: Completion) -> list[tuple[str, list[int]]]:
    """Labels with the bins of a box, or of all polygons in a row."""
    return [(one.label or "", shape(one)) for one in answer.grounding.detections]


def shape(one: Detection) -> list[int]:
    return bounds(one.box) if one.polygons is None else pixels(tuple(chain(*one.polygons)))


def expected(answer: Completion) -> list[tuple[str, list[int]]]:
    theirs = reference(answer)
    names = theirs.get("labels", theirs.get("bboxes_labels"))
    if "bboxes" in theirs:
        return [(name, upright(box)) for name, box in zip(names, theirs["bboxes"], strict=True)]
    whole = [[one for one in polygons if len(one) >= 6] for polygons in theirs["polygons"]]
    return [(name, [*chain(*polygons)]) for name, polygons in zip(names, whole, strict=True) if polygons]


@pytest.mark.parametrize("token", SHAPES)
def test_shapes_are_the_references(token: str) -> None:
    answers = answered()[token]
    for answer in answers:
        assert not answer.has_text
        assert (answer.grounding.native_task, answer.grounding.task) == (token, BY_TOKEN[token].name)
        assert found(answer) == expected(answer)
    assert any(answer.grounding.detections for answer in answers)


@pytest.mark.parametrize("token", WORDS)
def test_text_about_a_region_is_the_references_without_the_region(token: str) -> None:
    answers = answered()[token]
    for answer in answers:
        assert answer.has_text
        assert answer.text == answer.grounding.text == re.sub(r"<loc_\d+>", "", reference(answer)).strip()
        regions = re.findall(r"<loc_(\d+)>", reference(answer))
        boxes = [(answer.text, upright([*map(int, regions)]))] if len(regions) == 4 else []
        assert found(answer) == boxes
    silent = [answer for answer in answers if not answer.text]
    assert len(silent) <= (COUNT // 2 if token == "<REGION_TO_OCR>" else 0)  # where there is no word, some read none


def test_the_miniature_names_the_region_and_repeats_it() -> None:
    answers = answered()["<REGION_TO_DESCRIPTION>"]
    assert all(len(answer.grounding.detections) == 1 for answer in answers)
    assert not any(answer.grounding.truncated for answer in answers)


async def streamed(engine: Engine, request: Request) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


@pytest.mark.parametrize("name", ["region_caption", "region_category", "region_ocr"])
def test_streamed_text_is_the_whole_text(name: str) -> None:
    request = Request(scenes(1)[0], task=Task(name, region=Box(0.1, 0.1, 0.5, 0.6)))
    with Engine(load(FOLDER, dtype="float32", device="cpu")) as engine:
        chunks = asyncio.run(streamed(engine, request))
    answer = chunks[-1].completion
    assert answer is not None
    assert "".join(chunk.text for chunk in chunks) == answer.text == answer.grounding.text
    assert len([chunk for chunk in chunks if chunk.text]) > 0
    assert "<" not in answer.text


def test_a_point_is_the_centre_of_each_box_that_detection_finds() -> None:
    [image] = scenes(1, first=3)
    named, pointed = ask_all(FOLDER, [Request(image, task=Task("detect")), Request(image, task=Task("point"))])
    assert named.token_ids == pointed.token_ids
    assert (pointed.grounding.task, pointed.grounding.native_task) == ("point", "<OD>")
    assert [(d.label, d.box) for d in pointed.grounding.detections] == [
        (d.label, d.box) for d in named.grounding.detections
    ]
    assert pointed.grounding.detections
    for one in pointed.grounding.detections:
        assert one.kind == "point"
        assert one.point is not None
        assert one.box is not None
        assert one.box.x_min <= one.point.x <= one.box.x_max
