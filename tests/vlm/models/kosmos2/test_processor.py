"""Kosmos-2's processor against transformers' own, on the miniature checkpoint."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

from tests.images import scene, scenes
from tests.oracle import ask, ask_all, miniature_oracle
from vlm.checkpoint.files import Checkpoint
from vlm.engine.engine import Engine
from vlm.errors import CheckpointError, InvalidImage, InvalidRequest, UnsupportedTask
from vlm.image.decode import ImageLimits
from vlm.loading import families, load, synthesize
from vlm.models.base import normalised
from vlm.models.kosmos2.processor import Kosmos2Processor
from vlm.models.kosmos2.vocabulary import ADDED_TOKENS
from vlm.models.processor import Processor
from vlm.types import Box, Chunk, Request, Task

FOLDER = Path(__file__).parents[4] / "miniatures" / "kosmos-2"
OURS = Kosmos2Processor.from_checkpoint(Checkpoint.open(FOLDER))
TABLE = torch.from_numpy(OURS.pixel_table)
THEIRS: Any = AutoProcessor.from_pretrained(FOLDER)
PNG = scene(3)
IMAGE = Image.open(io.BytesIO(PNG))
POSITIONS = 512

PROMPTS = (
    "<grounding>An image of",
    "An image of",
    "<grounding>Describe this image in detail:",
    "<grounding><phrase> a red circle</phrase>",
    "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0463></object> is",
    "Question: How many shapes are there? Answer:",
    "<grounding> Question: What color is the circle? Answer:",
)


def asked(prompt: str = "", task: Task | None = None) -> Request:
    return Request(PNG, prompt, task)


def reference_ids(prompt: str) -> tuple[int, ...]:
    return tuple(THEIRS(images=IMAGE, text=prompt)["input_ids"])


def test_it_is_a_processor() -> None:
    processor: Processor = OURS  # mypy checks the contract
    assert processor.tasks == ("caption", "detect", "ground", "query", "region_caption")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_pixels_and_ids_are_the_references(prompt: str) -> None:
    inputs = OURS.prepare(asked(prompt))
    theirs = THEIRS(images=IMAGE, text=prompt, return_tensors="np")
    assert inputs.pixels is not None
    assert np.array_equal(normalised(inputs.pixels, TABLE), theirs["pixel_values"][0])
    assert inputs.prompt_ids == tuple(theirs["input_ids"][0].tolist())
    assert theirs["image_embeds_position_mask"][0, 2:66].all()
    assert (inputs.encoder_ids, inputs.native_task, inputs.resolution) == ((), prompt, "native")
    assert (inputs.image_tokens, inputs.text_tokens) == (64, len(inputs.prompt_ids) - 64)
    assert inputs.image_size == IMAGE.size


@pytest.mark.parametrize(
    ("task", "prompt"),
    [
        (Task("caption", length="short"), "<grounding>An image of"),
        (Task("caption"), "<grounding>Describe this image in detail:"),
        (Task("ground", text="a red circle"), "<grounding><phrase> a red circle</phrase>"),
        (Task("detect", labels=("a red circle",)), "<grounding><phrase> a red circle</phrase>"),
        (Task("query", text="How many shapes are there?"), "Question: How many shapes are there? Answer:"),
        (
            Task("region_caption", region=Box(0.3, 0.1, 0.6, 0.7)),
            "<grounding><phrase> It</phrase><object><patch_index_0105><patch_index_0723></object> is",
        ),
    ],
)
def test_named_tasks_have_the_ids_of_the_cards_prompts(task: Task, prompt: str) -> None:
    inputs = OURS.prepare(asked("", task))
    assert inputs.prompt_ids == reference_ids(prompt)
    assert (inputs.task, inputs.resolution, inputs.has_text) == (task.name, "task", task.name != "detect")


def test_a_region_has_the_cells_that_the_reference_gives_it() -> None:
    region = (0.3, 0.1, 0.6, 0.7)
    theirs = THEIRS(images=IMAGE, text="<grounding><phrase>It</phrase> is", bboxes=[region])["input_ids"]
    assert OURS.prepare(asked("", Task("region_caption", region=Box(*region)))).prompt_ids == tuple(theirs)


@pytest.mark.parametrize("token", ["</s>", "<image>", "<phrase>", "<patch_index_0000>", "</image>"])
@pytest.mark.parametrize(
    "task",
    [
        lambda text: Task("query", text=text),
        lambda text: Task("ground", text=text),
        lambda text: Task("detect", (text,)),
    ],
    ids=["query", "ground", "detect"],
)
def test_no_text_of_a_client_becomes_a_tag(task: Callable[[str], Task], token: str) -> None:
    plain, other = (OURS.prepare(asked("", task(text))).prompt_ids for text in ("a b", f"a {token} b"))
    known = {THEIRS.tokenizer.convert_tokens_to_ids(tag) for tag in (*ADDED_TOKENS, "<s>", "</s>")}
    assert [one for one in other if one in known] == [one for one in plain if one in known]


@given(words=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda text: "<" not in text))
def test_any_question_has_the_references_ids(words: str) -> None:
    if words.strip():
        task = Task("query", text=words)
        assert OURS.prepare(asked("", task)).prompt_ids == reference_ids(f"Question: {words.strip()} Answer:")


def test_captions_phrases_and_native_prompts_are_echoed() -> None:
    for prompt in PROMPTS:
        inputs = OURS.prepare(asked(prompt))
        assert inputs.prompt_ids[-inputs.echo :] == reference_ids(prompt)[67:]
        parsed = OURS.parse((), inputs, finished=True)
        assert parsed.text == THEIRS.post_process_generation(prompt)[0]


def test_a_question_in_plain_text_is_not_repeated() -> None:
    for request in (asked("How many?"), asked("", Task("query", text="How many?"))):
        inputs = OURS.prepare(request)
        assert inputs.echo == 0
        assert OURS.parse(OURS.vocabulary.encode("two"), inputs, finished=True).text == "two"


def test_a_detection_is_geometry_with_the_phrase_as_its_label() -> None:
    inputs = OURS.prepare(asked("", Task("detect", labels=("a red circle",))))
    ids = OURS.vocabulary.encode_tagged("<object><patch_index_0000><patch_index_0033></object>")
    parsed = OURS.parse(ids, inputs, finished=True)
    [found] = parsed.detections
    assert (found.label, found.spans, parsed.text) == ("a red circle", ((0, 12),), "a red circle")


def test_answers_of_the_miniature_read_as_the_reference_reads_them() -> None:
    """Text, entities and spans of complete sequences that a trained model generated."""
    requests = [ask(image, PROMPTS[index % len(PROMPTS)], max_tokens=60) for index, image in enumerate(scenes(35))]
    entities = 0
    for request, answer in zip(requests, ask_all(FOLDER, requests), strict=True):
        whole = [*reference_ids(request.prompt), *answer.token_ids]
        text, found = THEIRS.post_process_generation(THEIRS.tokenizer.decode(whole, skip_special_tokens=True))
        assert (answer.text, answer.grounding.text) == (text, text)
        ours = [(one.label, one.spans, one.box) for one in answer.grounding.detections]
        assert ours == [
            (None, (), Box(*box)) if name.startswith("<patch_index_") else (name, (span,), Box(*box))
            for name, span, boxes in found
            for box in boxes
        ]
        entities += len(found)
    assert entities >= 20


def test_the_references_clean_text_is_what_transformers_generates() -> None:
    """The entire reference: its processor, its generate, its post-processing."""
    image, prompt = scene(1), "<grounding>An image of"
    theirs = miniature_oracle("kosmos-2").answer(image, prompt, max_tokens=60)
    [ours] = ask_all(FOLDER, [ask(image, prompt, max_tokens=60)])
    raw = THEIRS.tokenizer.decode([*reference_ids(prompt), *theirs.token_ids], skip_special_tokens=True)
    assert ours.text == THEIRS.post_process_generation(raw)[0]


def test_no_image_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="Kosmos-2 needs an image") as caught:
        OURS.prepare(Request(None, "An image of"))
    assert caught.value.param == "image"


def test_a_task_that_is_not_offered_is_an_error() -> None:
    with pytest.raises(UnsupportedTask):
        OURS.prepare(asked("", Task("ocr")))


def test_the_limits_on_images_are_the_callers() -> None:
    strict = Kosmos2Processor.from_checkpoint(Checkpoint.open(FOLDER), ImageLimits(max_pixels=100))
    with pytest.raises(InvalidImage, match="100 pixels"):
        strict.prepare(asked())


def test_a_prompt_must_leave_room_for_an_answer() -> None:
    fixed = len(OURS.prepare(asked("a")).prompt_ids) - 1
    longest = OURS.prepare(asked("a " * (POSITIONS - 1 - fixed)))
    assert len(longest.prompt_ids) == POSITIONS - 1
    with pytest.raises(InvalidRequest) as caught:
        OURS.prepare(asked("a " * (POSITIONS - fixed)))
    assert caught.value.code == "context_length_exceeded"


def change_config(folder: Path, **changes: object) -> Checkpoint:
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((FOLDER / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return Checkpoint.open(folder)


def test_an_image_size_that_the_encoder_does_not_have_is_found_at_load(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"makes 96x96 images, but vision_config\.image_size is 224"):
        Kosmos2Processor.from_checkpoint(change_config(tmp_path, vision_config={}))


@pytest.mark.parametrize("section", ["text_config", "vision_config"])
def test_a_config_without_its_sections_is_an_error(tmp_path: Path, section: str) -> None:
    with pytest.raises(CheckpointError, match=section):
        Kosmos2Processor.from_checkpoint(change_config(tmp_path, **{section: None}))


def test_what_the_config_leaves_open_is_as_in_the_reference(tmp_path: Path) -> None:
    checkpoint = change_config(tmp_path, text_config={}, latent_query_num=8)
    processor = Kosmos2Processor.from_checkpoint(checkpoint)
    assert (processor.max_positions, processor.image_positions) == (2048, 8)


def test_the_published_layout_gives_the_references_inputs(tmp_path: Path) -> None:
    """``use_square_size`` with a shortest edge, as the hub has it; only the widths are small."""
    family = dict(families())["kosmos2"]
    tiny = family.sizes["tiny"]
    config = {**tiny, "vision_config": {**tiny["vision_config"], "image_size": 224, "patch_size": 56}}
    synthesize(family, tmp_path, config, 1)
    inputs = Kosmos2Processor.from_checkpoint(Checkpoint.open(tmp_path)).prepare(asked("<grounding>An image of"))
    theirs = AutoProcessor.from_pretrained(tmp_path)(images=IMAGE, text="<grounding>An image of", return_tensors="np")
    assert inputs.pixels is not None
    assert np.array_equal(normalised(inputs.pixels, TABLE), theirs["pixel_values"][0])
    assert inputs.prompt_ids == tuple(theirs["input_ids"][0].tolist())


@pytest.mark.parametrize("prompt", [*PROMPTS, "What is it?"])
def test_what_is_streamed_is_the_clean_text(prompt: str) -> None:
    """No tag and no cell is ever sent, and nothing is taken back."""

    async def streamed(engine: Engine) -> list[Chunk]:
        return [chunk async for chunk in engine.generate(ask(scene(1), prompt, max_tokens=60))]

    with Engine(load(FOLDER, dtype="float32", device="cpu")) as engine:
        chunks = asyncio.run(streamed(engine))
    whole = chunks[-1].completion
    assert whole is not None
    assert "".join(chunk.text for chunk in chunks) == whole.text == whole.grounding.text


def test_the_detailed_caption_begins_after_its_instruction() -> None:
    """The native prompt keeps it, as the reference does; the task leaves it out, and the spans move with the text."""
    detailed = "<grounding>Describe this image in detail:"
    instruction = "Describe this image in detail: "
    images = scenes(8)
    native = ask_all(FOLDER, [ask(image, detailed, max_tokens=60) for image in images])
    named = ask_all(FOLDER, [replace(ask(image, max_tokens=60), task=Task("caption")) for image in images])
    spans = 0
    for with_instruction, without in zip(native, named, strict=True):
        assert with_instruction.token_ids == without.token_ids
        assert with_instruction.text == instruction + without.text == instruction + (without.grounding.text or "")
        for before, after in zip(with_instruction.grounding.detections, without.grounding.detections, strict=True):
            assert (before.label, before.box) == (after.label, after.box)
            assert before.score == pytest.approx(after.score, rel=1e-4)
            moved = tuple((start + len(instruction), end + len(instruction)) for start, end in after.spans)
            assert before.spans == moved
            assert all(without.text[start:end] == after.label for start, end in after.spans)
            spans += len(after.spans)
    assert spans > 5
