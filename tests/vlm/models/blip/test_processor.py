"""BLIP's processor against transformers' own, on the miniature checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from tests.images import one_shape, png
from vlm.checkpoint.files import Checkpoint
from vlm.errors import CheckpointError, InvalidImage, InvalidRequest, UnsupportedTask
from vlm.image.decode import ImageLimits
from vlm.models.base import normalised
from vlm.models.blip.processor import BlipProcessor
from vlm.models.processor import Processor
from vlm.types import Box, Request, Task

FOLDER = Path(__file__).parents[4] / "miniatures" / "blip-large"
POSITIONS = 64
OURS = BlipProcessor.from_checkpoint(Checkpoint.open(FOLDER))
TABLE = torch.from_numpy(OURS.pixel_table)
THEIRS: Any = AutoProcessor.from_pretrained(FOLDER)
START = len(THEIRS.tokenizer)  # all its tokens are in the file; the start is the row after them

WORDS = st.text(st.characters(codec="utf-8"), max_size=30)  # every character that a client can send


IMAGE = one_shape(120, 80)
PNG = png(IMAGE)


def ask(prompt: str = "", task: Task | None = None) -> Request:
    return Request(PNG, prompt, task)


def prefix(text: str) -> Request:
    """A request whose caption begins with ``text``, whatever that is."""
    return ask("", Task("caption", text=text))


def reference_ids(text: str) -> tuple[int, ...]:
    """What transformers' ``generate`` makes of the processor's ids: [CLS] becomes the start, [SEP] goes."""
    ids = THEIRS(text=text)["input_ids"]
    return (START, *ids[1:-1])


def special_free(text: str) -> bool:
    return not any(token in text for token in THEIRS.tokenizer.all_special_tokens)


def test_it_is_a_processor() -> None:
    processor: Processor = OURS  # mypy checks the contract
    assert processor.tasks == ("caption",)


def test_pixels_and_ids_are_the_references() -> None:
    inputs = OURS.prepare(ask("a picture of"))
    theirs = THEIRS(images=IMAGE, text="a picture of", return_tensors="np")
    assert inputs.pixels is not None
    assert np.array_equal(normalised(inputs.pixels, TABLE), theirs["pixel_values"][0])
    assert inputs.prompt_ids == (START, *theirs["input_ids"][0][1:-1].tolist())
    assert inputs.encoder_ids == ()


@settings(max_examples=200, deadline=None)
@given(text=WORDS.filter(special_free))
def test_any_text_is_tokenised_as_the_reference_does(text: str) -> None:
    assert OURS.prepare(prefix(text)).prompt_ids == reference_ids(text)


@pytest.mark.parametrize("token", ["[SEP]", "[CLS]", "[PAD]", "[UNK]", "[MASK]"])
def test_a_special_token_in_the_text_is_ordinary_characters(token: str) -> None:
    ids = OURS.prepare(ask(f"a {token} red")).prompt_ids
    special = THEIRS.tokenizer.convert_tokens_to_ids(token)
    assert special in reference_ids(f"a {token} red"), "the reference would let a client write it"
    assert special not in ids


def test_a_lone_surrogate_does_not_crash() -> None:
    assert OURS.prepare(ask("a \ud800 b")).prompt_ids == reference_ids("a ? b")


def test_without_text_the_prompt_is_the_start_token() -> None:
    for prompt in ("", "  ", "\n"):
        inputs = OURS.prepare(ask(prompt))
        assert (inputs.prompt_ids, inputs.echo, inputs.text_tokens) == ((START,), 0, 1)
        assert inputs.resolution == "default"


def test_the_prompts_size_is_reported() -> None:
    inputs = OURS.prepare(ask("a picture of"))
    assert (inputs.image_tokens, inputs.text_tokens) == (65, 4)
    assert inputs.image_size == (120, 80)
    assert (inputs.task, inputs.native_task, inputs.has_text) == ("caption", "", True)


def test_text_is_the_native_prefix_of_the_caption() -> None:
    inputs = OURS.prepare(ask("a picture of"))
    assert (inputs.resolution, inputs.echo) == ("native", 3)


@pytest.mark.parametrize("task", [None, Task("caption")])
@pytest.mark.parametrize("prompt", ["What is this?", "Describe this image.", "Beschreibe das Bild", "a dog. Why"])
def test_a_question_or_an_instruction_is_not_the_beginning_of_the_caption(prompt: str, task: Task | None) -> None:
    inputs = OURS.prepare(ask(prompt, task))
    assert (inputs.prompt_ids, inputs.echo, inputs.ignored) == ((START,), 0, ("prompt",))
    assert inputs.resolution == ("plain" if task is None else "task")


def test_any_text_of_a_named_task_is_a_prefix() -> None:
    inputs = OURS.prepare(prefix("What is this?"))
    assert (inputs.prompt_ids, inputs.ignored) == (reference_ids("What is this?"), ())


def test_a_prompt_of_another_model_asks_for_a_caption_or_is_refused() -> None:
    inputs = OURS.prepare(ask("<MORE_DETAILED_CAPTION>"))
    assert (inputs.prompt_ids, inputs.resolution, inputs.ignored) == ((START,), "foreign", ())
    with pytest.raises(UnsupportedTask, match=r"BLIP does not offer\. Models that do: florence-2-base"):
        OURS.prepare(ask("<OD>"))


def test_a_named_task_takes_the_prompt_as_prefix() -> None:
    inputs = OURS.prepare(ask("a red", Task("caption")))
    assert inputs.prompt_ids == reference_ids("a red")
    assert (inputs.resolution, inputs.ignored) == ("task", ())


def test_the_tasks_own_text_wins_over_the_prompt() -> None:
    inputs = OURS.prepare(ask("a red", Task("caption", text="a blue")))
    assert inputs.prompt_ids == reference_ids("a blue")
    assert inputs.ignored == ("prompt",)


def test_what_a_caption_does_not_use_is_reported() -> None:
    task = Task("caption", labels=("dog",), text="a", region=Box(0, 0, 1, 1), length="long")
    assert OURS.prepare(ask("", task)).ignored == ("task.labels", "task.region", "task.length")


@pytest.mark.parametrize("name", ["detect", "query", "ground", "ocr", "CAPTION", ""])
def test_another_task_is_refused_with_the_list_of_those_offered(name: str) -> None:
    with pytest.raises(UnsupportedTask, match="it offers: caption") as caught:
        OURS.prepare(ask("", Task(name)))
    assert (caught.value.param, caught.value.code) == ("task", "unsupported_task")


def test_no_image_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="BLIP needs an image") as caught:
        OURS.prepare(Request(None, "a picture of"))
    assert caught.value.param == "image"


def test_the_limits_on_images_are_the_callers() -> None:
    strict = BlipProcessor.from_checkpoint(Checkpoint.open(FOLDER), ImageLimits(max_pixels=100))
    with pytest.raises(InvalidImage, match="100 pixels"):
        strict.prepare(ask())


def test_a_prefix_must_leave_room_for_a_caption() -> None:
    longest = OURS.prepare(prefix("a " * (POSITIONS - 2)))
    assert len(longest.prompt_ids) == POSITIONS - 1
    with pytest.raises(InvalidRequest) as caught:
        OURS.prepare(prefix("a " * (POSITIONS - 1)))
    assert caught.value.code == "context_length_exceeded"
    assert "64 tokens" in caught.value.message


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, START + 2), max_size=30), special=st.booleans())
def test_any_ids_are_decoded_as_the_reference_does(ids: list[int], special: bool) -> None:
    assert OURS.decode(ids, special=special) == THEIRS.decode(ids, skip_special_tokens=not special)


def test_the_answer_begins_with_the_prefix() -> None:
    inputs = OURS.prepare(ask("a picture of"))
    answer = [*reference_ids("a red circle")[1:], 3]  # 3 is [SEP], which ends a caption
    parsed = OURS.parse(answer, inputs, finished=True)
    assert (parsed.text, parsed.detections, parsed.truncated) == ("a picture of a red circle", (), False)


def test_without_a_prefix_the_model_chose_all_of_the_answer() -> None:
    inputs = OURS.prepare(ask())
    assert OURS.parse(reference_ids("a red circle")[1:], inputs, finished=True).text == "a red circle"


def test_a_caption_that_was_cut_is_truncated() -> None:
    assert OURS.parse([43], OURS.prepare(ask()), finished=False).truncated


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, START + 2), max_size=30), finished=st.booleans())
def test_any_ids_can_be_parsed(ids: list[int], finished: bool) -> None:
    parsed = OURS.parse(ids, OURS.prepare(ask("a red")), finished=finished)
    assert parsed.text is not None
    assert parsed.text.startswith("a red")
    assert parsed.detections == ()


@pytest.fixture
def hub_layout(tmp_path: Path) -> Path:
    """The miniature as a hub repository has it: preprocessor_config.json, no processor_config.json."""
    folder = tmp_path / "hub"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors", "processor_config.json"))
    nested = json.loads((FOLDER / "processor_config.json").read_text())["image_processor"]
    (folder / "preprocessor_config.json").write_text(json.dumps(nested | {"size": 96}))
    return folder


def test_the_hub_layout_gives_the_same_inputs(hub_layout: Path) -> None:
    other = BlipProcessor.from_checkpoint(Checkpoint.open(hub_layout)).prepare(ask("a picture of"))
    inputs = OURS.prepare(ask("a picture of"))
    assert other.prompt_ids == inputs.prompt_ids
    assert other.pixels is not None
    assert inputs.pixels is not None
    assert np.array_equal(other.pixels, inputs.pixels)


def change_config(folder: Path, **sections: object) -> Checkpoint:
    config = json.loads((FOLDER / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | sections))
    return Checkpoint.open(folder)


def test_what_the_config_leaves_open_is_as_in_the_reference(hub_layout: Path) -> None:
    checkpoint = change_config(hub_layout, text_config={}, vision_config={"image_size": 96})
    processor = BlipProcessor.from_checkpoint(checkpoint)
    assert (processor.start, processor.max_positions, processor.image_positions) == (30522, 512, 37)


def test_an_image_size_that_the_encoder_does_not_have_is_found_at_load(hub_layout: Path) -> None:
    with pytest.raises(CheckpointError, match=r"makes 96x96 images, but vision_config\.image_size is 384"):
        BlipProcessor.from_checkpoint(change_config(hub_layout, vision_config={}))


@pytest.mark.parametrize("section", ["text_config", "vision_config"])
def test_a_config_without_its_sections_is_an_error(hub_layout: Path, section: str) -> None:
    with pytest.raises(CheckpointError, match=section):
        BlipProcessor.from_checkpoint(change_config(hub_layout, **{section: None}))
