"""Answers to text and boxes, held against transformers' post-processing; nothing that a model writes is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor
from transformers.models.kosmos2.processing_kosmos2 import coordinate_to_patch_index

from vlm.checkpoint.files import Checkpoint
from vlm.models.kosmos2.parsing import box_between, cells_of, read
from vlm.models.kosmos2.vocabulary import Vocabulary
from vlm.models.processor import Parsed
from vlm.types import Box

FOLDER = Path(__file__).parents[4] / "miniatures" / "kosmos-2"
VOCABULARY = Vocabulary.from_checkpoint(Checkpoint.open(FOLDER))
THEIRS: Any = AutoProcessor.from_pretrained(FOLDER)
EOS = 2

MASK = THEIRS.tokenizer.mask_token_id  # the words' last neighbour
WORD = st.integers(4, MASK - 1)
SILENT = st.sampled_from([0, 1, EOS, 3, MASK])
CELL = st.sampled_from(list(VOCABULARY.cells))
TAG = st.sampled_from(sorted(VOCABULARY.tags[tag] for tag in VOCABULARY.tags if tag != "</image>"))
STRUCTURE = st.sampled_from(
    VOCABULARY.encode_tagged("<phrase></phrase><object></object></delimiter_of_multi_objects/>")
)
ANY_TOKEN = st.one_of(WORD, SILENT, CELL, TAG, STRUCTURE)

Entity = tuple[str, tuple[int, int], list[tuple[float, ...]]]
Found = tuple[str | None, tuple[tuple[int, int], ...], Box]


@st.composite
def answers(draw: st.DrawFn) -> list[int]:
    """Text and phrases with boxes, as a trained model generates them, with special tokens anywhere."""
    ids: list[int] = []
    for _ in range(draw(st.integers(0, 4))):
        ids += draw(st.lists(WORD, max_size=4))
        phrase = draw(st.lists(WORD, max_size=3))
        if draw(st.booleans()):
            ids += [*tags("<phrase>"), *phrase, *tags("</phrase>")]
        boxes = draw(st.lists(st.tuples(CELL, CELL), max_size=3))
        if boxes:
            inner = [token for box in boxes for token in (*tags("</delimiter_of_multi_objects/>"), *box)][1:]
            ids += [*tags("<object>"), *inner, *tags("</object>")]
    for index, token in draw(st.lists(st.tuples(st.integers(0, len(ids)), SILENT), max_size=2)):
        ids.insert(index, token)
    return ids


def tags(text: str) -> tuple[int, ...]:
    return VOCABULARY.encode_tagged(text)


def reference(ids: list[int]) -> tuple[str, list[Entity]]:
    # the position of the image, so that the first word keeps its space, as it does in a complete sequence
    text = THEIRS.tokenizer.decode([*tags("<grounding>"), *ids], skip_special_tokens=True)
    clean: tuple[str, list[Entity]] = THEIRS.post_process_generation(text)
    return clean


def expected(entities: list[Entity]) -> list[Found]:
    """The reference's entities as ours: one for each box, without a label where there is no text, corners in order."""
    found: list[Found] = []
    for name, span, boxes in entities:
        nameless = not name or name.startswith("<patch_index_")
        for x1, y1, x2, y2 in boxes:
            box = Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            found.append((None, (), box) if nameless else (name, (span,), box))
    return found


def assert_as_the_reference(ids: list[int]) -> Parsed:
    parsed = read(ids, VOCABULARY, finished=True)
    text, entities = reference(ids)
    assert parsed.text == text
    assert [(one.label, one.spans, one.box) for one in parsed.detections] == expected(entities)
    assert all(one.kind == "box" for one in parsed.detections)
    return parsed


@settings(max_examples=400)
@given(ids=answers())
def test_answers_are_read_as_the_reference_reads_them(ids: list[int]) -> None:
    assert not assert_as_the_reference(ids).truncated


@settings(max_examples=600)
@given(ids=st.lists(ANY_TOKEN, max_size=40))
def test_any_tokens_are_read_as_the_reference_reads_them(ids: list[int]) -> None:
    assert_as_the_reference(ids)


@given(ids=st.lists(ANY_TOKEN, max_size=40))
def test_spans_hold_their_labels(ids: list[int]) -> None:
    parsed = read(ids, VOCABULARY, finished=True)
    assert parsed.text is not None
    for found in parsed.detections:
        assert [parsed.text[start:end] for start, end in found.spans] == [found.label] * len(found.spans)


@pytest.fixture(scope="module")
def worldly(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """The same tags, but text with accents, in other scripts, of several code points, and parts of words."""
    folder = tmp_path_factory.mktemp("worldly")
    for path in FOLDER.iterdir():
        if path.suffix == ".json":
            (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    strange = ["▁café", "▁un", "é", "e\u0301", "▁🐕", "👩\u200d🚀", "▁日本", "語", "▁ß", "▁🇨🇭", "İ", "▁…"]
    tokenizer["model"]["vocab"][4 : 4 + len(strange)] = [[piece, -3.0] for piece in strange]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return Vocabulary.from_checkpoint(Checkpoint.open(folder))


@given(ids=st.lists(st.one_of(st.integers(4, 15), STRUCTURE, CELL), max_size=40) | answers())
def test_spans_cut_whole_words_of_any_script(worldly: Vocabulary, ids: list[int]) -> None:
    ids = [token if token >= MASK else 4 + token % 12 for token in ids]
    parsed = read(ids, worldly, finished=True)
    assert parsed.text is not None
    for found in parsed.detections:
        assert [parsed.text[start:end] for start, end in found.spans] == [found.label] * len(found.spans)


def test_spans_count_code_points(worldly: Vocabulary) -> None:
    dog, cell = [8, *tags("<phrase>"), 4, 8, 6, *tags("</phrase>")], next(iter(VOCABULARY.cells))
    parsed = read([*dog, *tags("<object>"), cell, cell, *tags("</object>")], worldly, finished=True)
    assert parsed.text == "🐕 café 🐕é"
    assert [(found.label, found.spans) for found in parsed.detections] == [("café 🐕é", ((2, 9),))]


def test_the_example_of_the_reference() -> None:
    """Its numbers, with words that the miniature has."""
    ids = tags(
        "<grounding> An image of<phrase> a circle</phrase><object><patch_index_0044><patch_index_0863></object> left "
        "of<phrase> a square</phrase><object><patch_index_0005><patch_index_0911></object>."
    )
    parsed = read(ids, VOCABULARY, finished=True)
    first, second = parsed.detections
    assert parsed.text == "An image of a circle left of a square."[:37] + " ."  # a full stop is a word of its own here
    assert (first.label, first.spans) == ("a circle", ((12, 20),))
    assert first.box == Box(0.390625, 0.046875, 0.984375, 0.828125)
    assert (second.label, second.spans) == ("a square", ((29, 37),))
    assert second.box == Box(0.171875, 0.015625, 0.484375, 0.890625)


def test_several_boxes_share_their_phrase() -> None:
    ids = tags(
        "<phrase> two circles</phrase><object><patch_index_0000><patch_index_0033></delimiter_of_multi_objects/>"
        "<patch_index_0500><patch_index_0600></object>"
    )
    parsed = assert_as_the_reference(list(ids))
    assert len(parsed.detections) == 2
    assert len({(one.label, one.spans) for one in parsed.detections}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "<phrase> a circle",
        "<phrase> a circle</phrase><object>",
        "<phrase> a circle</phrase><object><patch_index_0000>",
        "<phrase> a circle</phrase><object><patch_index_0000></object>",
        "<object></object>",
        "<object><patch_index_0000><patch_index_0001></delimiter_of_multi_objects/></object>",
        "a circle</phrase>",
        "<patch_index_0000>",
        "</delimiter_of_multi_objects/>",
    ],
)
def test_what_is_malformed_is_truncated(text: str) -> None:
    parsed = assert_as_the_reference(list(tags(text)))
    assert (parsed.truncated, parsed.detections) == (True, ())


def test_what_could_be_read_of_a_malformed_answer_stays() -> None:
    ids = tags("<object><patch_index_0000><patch_index_0033></object> a<object><patch_index_0000>")
    parsed = read(ids, VOCABULARY, finished=True)
    assert parsed.truncated
    assert len(parsed.detections) == 1


def test_an_answer_that_was_cut_is_truncated() -> None:
    assert read(tags("a red circle"), VOCABULARY, finished=False).truncated


def test_another_start_of_the_image_leaves_the_text_as_it_is() -> None:
    """The reference drops all before a second </image>; a stream cannot take back text that has been sent."""
    ids = (*tags("a red circle"), VOCABULARY.tags["</image>"], *tags("left"))
    assert read(ids, VOCABULARY, finished=True).text == "a red circle left"
    assert reference(list(ids))[0] == "left"


@given(first=st.integers(0, 1023), second=st.integers(0, 1023))
def test_cells_become_the_references_boxes(first: int, second: int) -> None:
    cells = f"<object><patch_index_{first:04d}><patch_index_{second:04d}></object>"
    [(_, _, [(x1, y1, x2, y2)])] = THEIRS.post_process_generation(cells)[1]
    assert box_between(first, second) == Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


SIDE = st.floats(0, 1)


@given(x=st.tuples(SIDE, SIDE), y=st.tuples(SIDE, SIDE))
def test_regions_become_the_references_cells(x: tuple[float, float], y: tuple[float, float]) -> None:
    region = Box(min(x), min(y), max(x), max(y))
    cells = cells_of(region)
    assert all(0 <= cell < 1024 for cell in cells)
    if region.x_max > region.x_min < 1 and region.y_max > region.y_min < 1 and min(region.x_max, region.y_max) > 1e-9:
        theirs = coordinate_to_patch_index((region.x_min, region.y_min, region.x_max, region.y_max), 32)
        assert cells == theirs


@pytest.mark.parametrize("coordinate", [0.0, 0.5, 1.0])
def test_a_region_without_extent_is_one_cell(coordinate: float) -> None:
    first, second = cells_of(Box(coordinate, coordinate, coordinate, coordinate))
    assert first == second
    assert first == min(31, int(coordinate * 32)) * 33


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 16), (8, 24), (31, 32)])
def test_a_region_between_the_edges_of_cells_has_no_cell_beyond_them(start: int, end: int) -> None:
    first, second = cells_of(Box(start / 32, start / 32, end / 32, end / 32))
    assert (first, second) == (start * 33, (end - 1) * 33)
