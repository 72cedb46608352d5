"""Florence-2's processor against transformers' own, on the miniature checkpoint."""

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
from vlm.models.florence2.processor import DROPPED_PHRASES, Florence2Processor
from vlm.models.florence2.tasks import BY_TOKEN, OFFERED, TASKS
from vlm.models.processor import Inputs, Parsed, Processor
from vlm.types import Box, Detection, Point, Request, Task

FOLDER = Path(__file__).parents[4] / "miniatures" / "florence-2-base"
GROUND = "<CAPTION_TO_PHRASE_GROUNDING>"
ROOM = 256 - 37  # the encoder's positions beside an image
OURS = Florence2Processor.from_checkpoint(Checkpoint.open(FOLDER))
TABLE = torch.from_numpy(OURS.pixel_table)
THEIRS: Any = AutoProcessor.from_pretrained(FOLDER)
BAR, EOS, BOS = "<loc_1><loc_2><loc_3><loc_4>", 2, 0
BART_SIZE: int = THEIRS.tokenizer.convert_tokens_to_ids("<od>")
"""Ids below are BART's: four special tokens, text, <mask>."""
BOX = Box(0.1, 0.2, 0.3, 0.4)
REGION = "<loc_100><loc_200><loc_300><loc_400>"


IMAGE = one_shape(160, 90)
PNG = png(IMAGE)


def prepare(prompt: str = "", task: Task | None = None) -> Inputs:
    return OURS.prepare(Request(PNG, prompt, task))


def example(token: str) -> str:
    task = BY_TOKEN[token]
    return token + (REGION if task.region else "a red car" if task.takes_argument else "")


def reference_ids(prompt: str) -> list[int]:
    ids: list[int] = THEIRS(images=IMAGE, text=prompt, return_tensors="np")["input_ids"][0].tolist()
    return ids


def test_it_is_a_processor() -> None:
    processor: Processor = OURS  # mypy checks the contract
    assert processor.tasks == OFFERED


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.token)
def test_every_tasks_inputs_are_the_references(task: Any) -> None:
    inputs = prepare(example(task.token))
    theirs = THEIRS(images=IMAGE, text=example(task.token), return_tensors="np")
    assert inputs.pixels is not None
    assert np.array_equal(normalised(inputs.pixels, TABLE), theirs["pixel_values"][0])
    assert list(inputs.encoder_ids) == theirs["input_ids"][0].tolist()
    assert inputs.prompt_ids == (EOS,)
    assert (inputs.native_task, inputs.task, inputs.resolution) == (task.token, task.name, "native")


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=40).filter(str.strip))
def test_any_caption_to_ground_gives_the_references_ids(text: str) -> None:
    assert list(prepare(GROUND + text).encoder_ids) == reference_ids(GROUND + text)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.token)
def test_only_text_is_streamed(task: Any) -> None:
    assert prepare(example(task.token)).has_text == (
        task.name in ("caption", "ocr", "region_caption", "region_category", "region_ocr")
    )


def test_the_prompts_size_is_reported() -> None:
    inputs = prepare("<OD>")
    assert inputs.image_tokens == 37
    assert inputs.image_tokens + inputs.text_tokens == len(inputs.encoder_ids)
    assert (inputs.image_size, inputs.echo, inputs.ignored) == ((160, 90), 0, ())


def test_a_named_task_gives_what_its_token_gives() -> None:
    named, native = prepare("hello", Task("detect")), prepare("<OD>")
    assert named.encoder_ids == native.encoder_ids
    assert (named.resolution, named.ignored) == ("task", ("prompt",))


@pytest.mark.parametrize(
    ("task", "prompt"),
    [
        (Task("region_ocr", region=BOX), f"<REGION_TO_OCR>{REGION}"),
        (Task("region_caption", region=BOX), f"<REGION_TO_DESCRIPTION>{REGION}"),
        (Task("region_category", region=BOX), f"<REGION_TO_CATEGORY>{REGION}"),
        (Task("segment", region=BOX), f"<REGION_TO_SEGMENTATION>{REGION}"),
        (Task("segment", text="a car"), "<REFERRING_EXPRESSION_SEGMENTATION>a car"),
        (Task("detect", labels=("a car",)), "<OPEN_VOCABULARY_DETECTION>a car"),
        (Task("point", labels=("a car",)), "<OPEN_VOCABULARY_DETECTION>a car"),
    ],
)
def test_an_argument_of_a_named_task_gives_the_references_ids(task: Task, prompt: str) -> None:
    inputs = prepare("", task)
    assert list(inputs.encoder_ids) == reference_ids(prompt)
    assert (inputs.task, inputs.native_task) == (task.name, prompt.partition(">")[0] + ">")


def test_plain_text_and_none_are_captions() -> None:
    assert (prepare("hi").resolution, prepare("hi").native_task) == ("plain", "<DETAILED_CAPTION>")
    assert (prepare("hi").ignored, prepare("Describe it.").ignored, prepare("Read the text").ignored) == (
        ("prompt",),
        (),
        (),
    )
    assert (prepare().resolution, prepare().encoder_ids) == ("default", prepare("<CAPTION>").encoder_ids)


@pytest.mark.parametrize("special", ["</s>", "<s>", "<pad>", "<image>", "<od>", "<poly>"])
def test_a_special_token_in_a_caption_is_ordinary_characters(special: str) -> None:
    inputs = prepare(f"{GROUND} a {special} car")
    text = inputs.encoder_ids[37:]
    assert (text[0], text[-1]) == (BOS, EOS)
    number = THEIRS.tokenizer.convert_tokens_to_ids(special)
    assert number not in text[1:-1]
    assert OURS.parse([], inputs, finished=True).text == f"a {special} car"


def test_locations_in_a_caption_are_locations() -> None:
    prompt = f"{GROUND} a car <loc_5> here"
    assert list(prepare(prompt).encoder_ids) == reference_ids(prompt)
    assert OURS.parse([], prepare(prompt), finished=True).text == "a car <loc_5> here"


def test_a_text_must_fit_beside_the_image() -> None:
    longest = next(count for count in range(ROOM, 0, -1) if fits(" a" * count))
    assert longest > ROOM // 2
    with pytest.raises(InvalidRequest) as caught:
        prepare(GROUND + " a" * (longest + 1))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")
    assert "maximum context length is 256 tokens" in caught.value.message
    assert len(prepare(GROUND + " a" * longest).encoder_ids) == 256


def fits(text: str) -> bool:
    return len(reference_ids(GROUND + text)) <= 256


def test_no_image_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="Florence-2 needs an image") as caught:
        OURS.prepare(Request(None, "<OD>"))
    assert caught.value.param == "image"


def test_errors_of_the_task_come_before_the_image_is_read() -> None:
    with pytest.raises(UnsupportedTask):
        OURS.prepare(Request(b"no image", "<SEGMENT>"))
    with pytest.raises(InvalidImage):
        OURS.prepare(Request(b"no image", "<OD>"))


def test_the_limits_on_images_are_the_callers() -> None:
    strict = Florence2Processor.from_checkpoint(Checkpoint.open(FOLDER), ImageLimits(min_side=100))
    with pytest.raises(InvalidImage, match="100 pixels"):
        strict.prepare(Request(PNG))


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 1599), max_size=30), special=st.booleans())
def test_any_ids_are_decoded_as_the_reference_does(ids: list[int], special: bool) -> None:
    assert OURS.decode(ids, special=special) == THEIRS.decode(ids, skip_special_tokens=not special)


@pytest.mark.parametrize("token", ["<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>", "<OCR>"])
@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.integers(4, BART_SIZE - 2), max_size=30))
def test_text_is_the_references(token: str, ids: list[int]) -> None:
    answer = [BOS, *ids, EOS]
    text = THEIRS.decode(answer, skip_special_tokens=False)
    parsed = OURS.parse(answer, prepare(token), finished=True)
    assert parsed.text == THEIRS.post_process_generation(text=text, task=token, image_size=(9, 9))[token]
    assert (parsed.detections, parsed.truncated) == ((), False)


def test_text_that_was_cut_is_truncated() -> None:
    assert OURS.parse([BOS, 40], prepare("<CAPTION>"), finished=False).truncated


def test_each_geometry_task_is_read_by_its_own_grammar() -> None:
    answer = (BOS, *OURS.vocabulary.encode("a red car" + BAR + BAR), EOS)
    od = OURS.parse(answer, prepare("<OD>"), finished=True)
    assert [(d.kind, d.label, d.spans) for d in od.detections] == [("box", "a red car", ())] * 2
    assert od.text is None
    ocr = OURS.parse(answer, prepare("<OCR_WITH_REGION>"), finished=True)
    assert [(d.kind, d.text, d.label) for d in ocr.detections] == [("quad", "a red car", None)]
    assert ocr.text is None
    grounded = OURS.parse(answer, prepare("", Task("ground", text="see a red car")), finished=True)
    assert [(d.kind, d.label, d.spans) for d in grounded.detections] == [("box", "a red car", ((4, 13),))] * 2
    assert grounded.text == "see a red car"


def test_points_are_the_centres_of_detected_boxes() -> None:
    answer = (BOS, *OURS.vocabulary.encode("a red car" + BAR), EOS)
    for task in (Task("point"), Task("point", labels=("car",))):
        (point,) = OURS.parse(answer, prepare("", task), finished=True).detections
        box = Box(0.0015, 0.0025, 0.0035, 0.0045)
        assert (point.kind, point.label, point.box, point.polygons) == ("point", "a red car", box, None)
        assert point.point == Point((box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2)


def test_a_region_is_left_out_of_the_text_and_kept_as_a_box() -> None:
    answer = (BOS, *OURS.vocabulary.encode("a red car" + BAR), EOS)
    parsed = OURS.parse(answer, prepare(f"<REGION_TO_DESCRIPTION>{REGION}"), finished=True)
    box = Box(0.0015, 0.0025, 0.0035, 0.0045)
    assert parsed == Parsed("a red car", (Detection("box", label="a red car", box=box),))
    assert OURS.decode(answer) == parsed.text
    assert OURS.decode(answer, special=True) == f"<s>a red car{BAR}</s>"


def test_locations_that_are_no_special_tokens_are_no_text_either(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tokenizer = json.loads((FOLDER / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["special"] = token["id"] < BART_SIZE
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    plain, answer = opened(folder), (BOS, *OURS.vocabulary.encode("a red car" + BAR), EOS)
    assert plain.decode(answer) == OURS.decode(answer) == "a red car"
    asked = Request(PNG, f"<REGION_TO_CATEGORY>{REGION}")
    assert plain.prepare(asked).encoder_ids == OURS.prepare(asked).encoder_ids
    assert plain.parse(answer, plain.prepare(asked), finished=True).text == "a red car"


@settings(max_examples=100, deadline=None)
@given(
    ids=st.lists(st.one_of(st.integers(0, 1599), st.sampled_from(sorted(OURS.vocabulary.bins))), max_size=40),
    token=st.sampled_from([task.token for task in TASKS]),
    finished=st.booleans(),
)
def test_whatever_is_written_can_be_read(ids: list[int], token: str, finished: bool) -> None:
    parsed = OURS.parse(ids, prepare(example(token)), finished=finished)
    assert parsed.truncated or finished
    assert (parsed.text is None) == (BY_TOKEN[token].answer not in ("text", "phrases"))


@pytest.fixture
def hub_layout(tmp_path: Path) -> Path:
    """The miniature as an original repository has it: preprocessor_config.json, a tokenizer with BART's tokens only."""
    folder = tmp_path / "hub"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors", "processor_config.json"))
    nested = json.loads((FOLDER / "processor_config.json").read_text())["image_processor"]
    (folder / "preprocessor_config.json").write_text(json.dumps(nested))
    tokenizer = json.loads((FOLDER / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < BART_SIZE]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def opened(folder: Path) -> Florence2Processor:
    return Florence2Processor.from_checkpoint(Checkpoint.open(folder))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.token)
def test_the_hub_layout_gives_the_same_inputs(hub_layout: Path, task: Any) -> None:
    other = opened(hub_layout).prepare(Request(PNG, example(task.token)))
    inputs = prepare(example(task.token))
    assert (other.encoder_ids, other.prompt_ids) == (inputs.encoder_ids, inputs.prompt_ids)
    assert other.pixels is not None
    assert inputs.pixels is not None
    assert np.array_equal(other.pixels, inputs.pixels)


def test_ids_do_not_come_from_the_config(hub_layout: Path) -> None:
    """Fine-tuned uploads carry the class defaults of old: begin 2, end 1, pad 0."""
    text = json.loads((FOLDER / "config.json").read_text())["text_config"]
    wrong = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 1}
    change(hub_layout / "config.json", text_config=text | wrong, image_token_id=5)
    assert opened(hub_layout).prepare(Request(PNG, "<OD>")).encoder_ids == prepare("<OD>").encoder_ids
    assert opened(hub_layout).prepare(Request(PNG, "<OD>")).prompt_ids == (EOS,)


def test_image_positions_are_computed_where_the_file_does_not_say(hub_layout: Path) -> None:
    change(hub_layout / "preprocessor_config.json", image_seq_length=None)
    assert opened(hub_layout).image_positions == 37


def test_the_real_models_image_positions_are_577(hub_layout: Path) -> None:
    vision = {"patch_size": [7, 3, 3, 3], "patch_stride": [4, 2, 2, 2], "patch_padding": [3, 1, 1, 1]}
    change(hub_layout / "config.json", vision_config=vision)
    change(hub_layout / "preprocessor_config.json", image_seq_length=None, size={"height": 768, "width": 768})
    assert opened(hub_layout).image_positions == 577


def test_dropped_phrases_are_the_checkpoints() -> None:
    assert OURS.dropped_phrases == THEIRS.post_processor.banned_grounding_tokens


def test_an_upload_without_post_processing_settings_drops_the_published_phrases(hub_layout: Path) -> None:
    assert opened(hub_layout).dropped_phrases == DROPPED_PHRASES
    assert len(DROPPED_PHRASES) == 72
    assert {"it", "I", "the image", "one another", "yourselves"} <= DROPPED_PHRASES


@pytest.mark.parametrize("stored", [{}, {"phrase_grounding": {}}, {"ocr": {}}])
def test_settings_without_the_list_drop_nothing_as_in_the_reference(hub_layout: Path, stored: dict[str, Any]) -> None:
    (hub_layout / "processor_config.json").write_text(json.dumps({"post_processor_config": stored}))
    assert opened(hub_layout).dropped_phrases == frozenset()


def test_a_config_without_a_text_section_is_an_error(hub_layout: Path) -> None:
    change(hub_layout / "config.json", text_config=None)
    with pytest.raises(CheckpointError, match="text_config"):
        opened(hub_layout)
