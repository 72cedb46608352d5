"""Answers of the original code on a small random model: every task, in fp32, greedy; and what lies between."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.vlm.models.moondream2.driver import (
    DATA,
    TABLE,
    Alone,
    answer,
    cases,
    features_of,
    golden,
    golden_image,
    prefilled,
)
from vlm.errors import InvalidRequest
from vlm.layers.attention import Growing
from vlm.models.base import normalised
from vlm.models.processor import Inputs
from vlm.types import Box, Point, Request, Sampling, Task

EXPECTED: dict[str, Tensor] = load_file(DATA / "expected.safetensors")
IMAGES = ("small_224x160", "wide_800x400", pytest.param("std_1024x768", marks=pytest.mark.real))
CASES = {case["id"]: case for case in cases()}
CRASHED = {name for name, case in CASES.items() if case["error"]}
MARK_IN_WORDS = "c36"
NO_OBJECTS = "c61"
MOST = 48


def request_of(case: dict[str, Any]) -> Request:
    """The same request to ours. There, reasoning and answer may each have so many tokens; here, both together."""
    asked = case["args"]
    image = None if case["image"] is None else golden_image(case["image"])
    sampling = Sampling(max_tokens=2 * MOST + 1 if asked.get("reasoning") else MOST)
    return Request(image, task=task_of(case["task"], asked), sampling=sampling)


def task_of(name: str, asked: dict[str, Any]) -> Task:
    if name.startswith("caption"):
        return Task("caption", length=asked["length"])
    if name.startswith("query"):
        references = tuple(Point(*one) if len(one) == 2 else Box(*one) for one in asked.get("spatial_refs", ()))
        return Task("query", text=asked["question"], reasoning=asked.get("reasoning", False), references=references)
    return Task(name, labels=(asked["object"],), max_objects=asked["settings"]["max_objects"])


@cache
def inputs_of(name: str) -> Inputs:
    inputs = golden()[1].prepare(request_of(CASES[name]))
    # The original turns a special token in a client's text into its id; ours does not, and is handed the ids.
    return replace(inputs, prompt_ids=tuple(CASES[name]["prompt_ids"])) if name == MARK_IN_WORDS else inputs


@cache
def image_features(image: str) -> Tensor:
    model, processor = golden()
    return features_of(model, processor.prepare(Request(golden_image(image))))


def answered(name: str) -> Alone:
    image, inputs = CASES[name]["image"], inputs_of(name)
    features = None if image is None else image_features(image)
    if inputs.max_reasoning_tokens is None:
        return answer(golden()[0], inputs, MOST, features)
    row = answer(golden()[0], inputs, 2 * MOST + 1, features)
    end = row.generated.index(golden()[1].ids.answer) + 1 + MOST  # the answer after short reasoning has no more there
    return replace(row, generated=row.generated[:end], logprobs=row.logprobs[:end])


def result_of(row: Alone) -> dict[str, Any]:
    """Our answer as the original gives it: text unstripped, boxes unclipped."""
    processor = golden()[1]
    name, ids = row.inputs.native_task, row.generated
    if name == "detect":
        corners = ("x_min", "y_min", "x_max", "y_max")
        return {"objects": [dict(zip(corners, one, strict=True)) for one in processor.reader.corners(ids)]}
    if name == "point":
        return {"points": [{"x": x, "y": y} for x, y in processor.reader.pairs(ids)]}
    if row.inputs.max_reasoning_tokens is None:
        return {"caption" if name == "caption" else "answer": processor.decode(ids)}
    return {"reasoning": reasoning_of(row), "answer": processor.decode(ids[ids.index(processor.ids.answer) + 1 :])}


def reasoning_of(row: Alone) -> dict[str, Any]:
    parsed = golden()[1].parse(row.generated, row.inputs, finished=True, logprobs=row.logprobs)
    parts: dict[tuple[int, int], list[list[float]]] = {}
    for found in parsed.detections:
        assert found.point is not None
        parts.setdefault(found.spans[0], []).append([found.point.x, found.point.y])
    grounding = [{"start_idx": start, "end_idx": end, "points": points} for (start, end), points in parts.items()]
    return {"text": parsed.reasoning, "grounding": grounding}


def expected_of(case: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = case["result"]
    return {"answer": "".join(result["chunks"])} if "chunks" in result else result


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Boxes within what float32 makes of a power of two; all else exactly."""
    if "objects" not in expected:
        assert found == expected
        return
    assert len(found["objects"]) == len(expected["objects"])
    for ours, theirs in zip(found["objects"], expected["objects"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


FEW = ("c00", "c12", "c14", "c28", "c30", "c33", "c34", "c38", "c40", "c43", "c47")
ANSWERED = [name for name in CASES if name not in CRASHED | {NO_OBJECTS}]


@pytest.mark.parametrize("name", FEW)
def test_some_answers_are_the_originals(name: str) -> None:
    assert_equal(result_of(answered(name)), expected_of(CASES[name]))


@pytest.mark.real
@pytest.mark.parametrize("name", [name for name in ANSWERED if name not in FEW])
def test_all_answers_are_the_originals(name: str) -> None:
    assert_equal(result_of(answered(name)), expected_of(CASES[name]))


@pytest.mark.parametrize("name", [name for name in ANSWERED if name != MARK_IN_WORDS])
def test_prompts_are_the_originals(name: str) -> None:
    assert list(inputs_of(name).prompt_ids) == CASES[name]["prompt_ids"]


def test_the_original_crashes_where_it_does() -> None:
    """Reasoning that begins with a coordinate, reasoning with references, and a settings dict of a certain form."""
    assert {"c29", "c32", "c35", "c62"} == CRASHED


@pytest.mark.parametrize("name", sorted(CRASHED))
def test_where_the_original_crashes_there_is_an_answer(name: str) -> None:
    row = answered(name)
    parsed = golden()[1].parse(row.generated, row.inputs, finished=True, logprobs=row.logprobs)
    assert parsed.text
    assert (parsed.reasoning is not None) == (row.inputs.max_reasoning_tokens is not None)


def test_no_objects_at_all_cannot_be_asked_for() -> None:
    """The original answers such a request with no objects, at the cost of a prompt."""
    assert CASES[NO_OBJECTS]["result"] == {"objects": []}
    with pytest.raises(InvalidRequest, match="max_objects must be at least 1"):
        inputs_of(NO_OBJECTS)


@pytest.mark.parametrize("name", IMAGES)
def test_features_are_the_originals(name: str) -> None:
    torch.testing.assert_close(image_features(name)[::9], EXPECTED[f"{name}.image_embeds"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", IMAGES)
def test_the_processor_counts_the_crops_that_the_encoder_sees(name: str) -> None:
    model, processor = golden()
    inputs = processor.prepare(Request(golden_image(name)))
    assert inputs.pixels is not None
    crops, _, _ = model.vision.crops(normalised(inputs.pixels, TABLE))
    assert inputs.crops == len(crops)


def test_features_of_a_crop_are_the_originals() -> None:
    model, processor = golden()
    inputs = processor.prepare(Request(golden_image("wide_800x400")))
    pixels = inputs.pixels
    assert pixels is not None
    assert inputs.crops == 11
    with torch.inference_mode():
        crops, rows, columns = model.vision.crops(normalised(pixels, TABLE))
        assert (len(crops), rows, columns) == (11, 2, 5)
        whole, first, last = (model.vision.encode(crops[index : index + 1])[0] for index in (0, 1, 10))
    for found, expected in ((whole, "global"), (first, "local0"), (last, "local9")):
        torch.testing.assert_close(found[::9], EXPECTED[f"wide_800x400.vision_out_{expected}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", IMAGES)
def test_the_prefix_is_the_originals(name: str) -> None:
    model = golden()[0]
    context = Growing(prefix=model.cache.prefix_positions)
    context.advance(model.cache.prefix_positions)
    with torch.inference_mode():
        hidden = model.forward(model.embed_prefix([image_features(name)]), context)[0]
    expected = EXPECTED[f"{name}.prefill_hidden_sel"]
    torch.testing.assert_close(hidden[[0, 1, 2, 365, 728, 729]], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["c03", "c28", "c33", "c34", "c45"])
def test_the_last_hidden_state_of_a_prompt_is_the_originals(name: str) -> None:
    image = CASES[name]["image"]
    _, hidden = prefilled(golden()[0], inputs_of(name), None if image is None else image_features(image))
    torch.testing.assert_close(hidden[0], EXPECTED[f"{name}.prefill0.hidden_last"], atol=2e-5, rtol=0)
