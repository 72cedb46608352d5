"""Answers to objects, compared with transformers' post-processing; nothing is invented, whatever a model generates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from vlm.checkpoint.files import Checkpoint
from vlm.models.florence2.parsing import Run, read_boxes, read_phrases, read_quads, runs
from vlm.models.florence2.vocabulary import Vocabulary
from vlm.models.processor import Parsed
from vlm.types import Box, Detection

FOLDER = Path(__file__).parents[4] / "miniatures" / "florence-2-base"
VOCABULARY = Vocabulary.from_checkpoint(Checkpoint.open(FOLDER))
THEIRS: Any = AutoProcessor.from_pretrained(FOLDER)
FIRST_BIN = min(VOCABULARY.bins)
SIZE = (1000, 1000)  # one pixel a bin, so that the reference's whole pixels are the bins
DROPPED = frozenset(THEIRS.post_processor.banned_grounding_tokens)


# words of real answers; what the reference cannot tell from its own special tokens is tested separately
def usable(token: int) -> bool:
    text = VOCABULARY.decode([token])
    return text.isascii() and bool(text.strip()) and not set(text) & set("<>\n")


LETTERS = [token for token in range(4, FIRST_BIN) if usable(token)]
PHRASES = st.sampled_from(["a red car", " the dog", "it", "a", "the image", "café", "日本 x", "star "])
LABEL = st.one_of(
    st.lists(st.sampled_from(LETTERS), min_size=1, max_size=4).map(tuple),
    PHRASES.map(VOCABULARY.encode),
)
BIN = st.integers(FIRST_BIN, FIRST_BIN + 999)
SILENT = st.sampled_from([VOCABULARY.bos, VOCABULARY.eos, VOCABULARY.pad])
ANY_TOKEN = st.one_of(st.integers(0, 1599), BIN, SILENT)


def bins(count: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return count.flatmap(lambda n: st.lists(BIN, min_size=n, max_size=n).map(tuple))


def answers(count: st.SearchStrategy[int]) -> st.SearchStrategy[list[int]]:
    """Labels, each followed by ``count`` bins, with silent tokens anywhere."""
    segments = st.lists(st.tuples(LABEL, bins(count)), max_size=5)
    flat = segments.map(lambda pairs: [token for label, found in pairs for token in (*label, *found)])
    return flat.flatmap(
        lambda tokens: st.lists(st.tuples(st.integers(0, len(tokens)), SILENT), max_size=3).map(
            lambda noise: scattered(tokens, noise)
        )
    )


def scattered(tokens: list[int], noise: list[tuple[int, int]]) -> list[int]:
    result = list(tokens)
    for index, token in sorted(noise, reverse=True):
        result.insert(index, token)
    return result


def ids(text: str) -> tuple[int, ...]:
    return VOCABULARY.encode(text)


def boxes(text: str, *, finished: bool = True) -> Parsed:
    return read_boxes(runs(ids(text), VOCABULARY), finished=finished)


def quads(text: str, *, finished: bool = True) -> Parsed:
    return read_quads(runs(ids(text), VOCABULARY), finished=finished)


def phrases(text: str, caption: str) -> Parsed:
    return read_phrases(runs(ids(text), VOCABULARY), caption, DROPPED, finished=True)


def locations(*numbers: int) -> str:
    return "".join(f"<loc_{number}>" for number in numbers)


def reference(task: str, tokens: list[int]) -> dict[str, Any]:
    text = THEIRS.decode(tokens, skip_special_tokens=False)
    result: dict[str, Any] = THEIRS.post_process_generation(text=text, task=task, image_size=SIZE)[task]
    return result


def theirs_boxes(task: str, tokens: list[int]) -> list[tuple[str, list[int]]]:
    """The reference's boxes, put upright, without the remains of special tokens in its labels (``loc_3>car``)."""
    found = reference(task, tokens)
    pairs = zip(found["labels"], found["bboxes"], strict=True)
    upright = [(label, [*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])]) for label, box in pairs]
    return [(label.rpartition(">")[2].strip(), box) for label, box in upright if not label.endswith(">")]


def ours_boxes(parsed: Parsed) -> list[tuple[str, list[int]]]:
    return [(ascii_only(d.label), pixels(d.box)) for d in parsed.detections]


def ascii_only(text: str | None) -> str:
    """The reference drops every other letter of a label."""
    return (text or "").encode("ascii", "ignore").decode("ascii").strip()


def pixels(box: Box | None) -> list[int]:
    assert box is not None
    return [int(value * 1000) for value in (box.x_min, box.y_min, box.x_max, box.y_max)]


def whole(size: int) -> st.SearchStrategy[int]:
    return st.integers(1, 3).map(lambda count: count * size)


@settings(max_examples=100, deadline=None)
@given(tokens=answers(whole(4)), task=st.sampled_from(["<OD>", "<DENSE_REGION_CAPTION>"]))
def test_well_formed_boxes_are_the_references(tokens: list[int], task: str) -> None:
    parsed = read_boxes(runs(tokens, VOCABULARY), finished=True)
    assert ours_boxes(parsed) == theirs_boxes(task, tokens)
    assert not parsed.truncated
    assert parsed.text is None


@settings(max_examples=100, deadline=None)
@given(tokens=answers(st.integers(0, 13)))
def test_of_malformed_boxes_we_keep_what_the_reference_keeps(tokens: list[int]) -> None:
    assert ours_boxes(read_boxes(runs(tokens, VOCABULARY), finished=True)) == theirs_boxes("<OD>", tokens)


@settings(max_examples=100, deadline=None)
@given(tokens=answers(whole(4)), caption=st.text(max_size=20))
def test_well_formed_phrases_are_the_references(tokens: list[int], caption: str) -> None:
    parsed = read_phrases(runs(tokens, VOCABULARY), caption, DROPPED, finished=True)
    assert ours_boxes(parsed) == theirs_boxes("<CAPTION_TO_PHRASE_GROUNDING>", tokens)
    assert (parsed.text, parsed.truncated) == (caption, False)


@settings(max_examples=100, deadline=None)
@given(tokens=answers(st.one_of(st.just(8), st.integers(0, 17))))
def test_quadrilaterals_are_the_references(tokens: list[int]) -> None:
    found = reference("<OCR_WITH_REGION>", tokens)
    theirs = [
        (ascii_only(label.rpartition(">")[2]), corners)
        for label, corners in zip(found["labels"], found["quad_boxes"], strict=True)
        if not label.endswith(">")
    ]
    parsed = read_quads(runs(tokens, VOCABULARY), finished=True)
    ours = [
        (ascii_only(d.text), [int(value * 1000) for p in d.quad or () for value in (p.x, p.y)])
        for d in parsed.detections
    ]
    assert ours == theirs


@pytest.mark.parametrize("size", [(640, 480), (97, 1031), (1, 1)])
def test_full_precision_lies_within_the_references_pixel(size: tuple[int, int]) -> None:
    text = "car" + locations(0, 17, 500, 999)
    theirs = THEIRS.post_process_generation(text=text, task="<OD>", image_size=size)["<OD>"]["bboxes"][0]
    box = boxes(text).detections[0].box
    assert box is not None
    ours = [box.x_min * size[0], box.y_min * size[1], box.x_max * size[0], box.y_max * size[1]]
    assert all(0 <= value - pixel < 1 for value, pixel in zip(ours, theirs, strict=True))


@settings(max_examples=200, deadline=None)
@given(tokens=st.lists(ANY_TOKEN, max_size=60), finished=st.booleans())
def test_whatever_is_written_gives_well_formed_objects(tokens: list[int], finished: bool) -> None:
    given = runs(tokens, VOCABULARY)
    for parsed in (
        read_boxes(given, finished=finished),
        read_phrases(given, "a red car", DROPPED, finished=finished),
        read_quads(given, finished=finished),
    ):
        assert parsed.truncated or finished
        for detection in parsed.detections:
            check(detection)


def check(detection: Detection) -> None:
    box = detection.box
    assert box is not None
    assert 0 < box.x_min <= box.x_max < 1
    assert 0 < box.y_min <= box.y_max < 1
    if detection.kind == "quad":
        assert detection.quad is not None
        assert len(detection.quad) == 4
        assert Box.spanning(detection.quad) == box
    assert all(0 <= start < end <= len("a red car") for start, end in detection.spans)


@settings(max_examples=100, deadline=None)
@given(tokens=st.lists(ANY_TOKEN, max_size=60))
def test_no_box_is_invented(tokens: list[int]) -> None:
    numbers = [VOCABULARY.bins[token] for token in tokens if token in VOCABULARY.bins]
    written = {tuple(numbers[start : start + 4]) for start in range(len(numbers))}
    for detection in read_boxes(runs(tokens, VOCABULARY), finished=True).detections:
        x1, y1, x2, y2 = pixels(detection.box)
        assert written & {(a, b, c, d) for a, c in ((x1, x2), (x2, x1)) for b, d in ((y1, y2), (y2, y1))}


def test_centres_of_bins_are_kept_in_full() -> None:
    parsed = boxes("car" + locations(0, 1, 998, 999))
    assert parsed.detections == (Detection("box", label="car", box=Box(0.0005, 0.0015, 0.9985, 0.9995)),)


def test_one_label_owns_all_boxes_that_follow_it() -> None:
    parsed = boxes("car" + locations(1, 2, 3, 4, 5, 6, 7, 8) + "dog" + locations(9, 10, 11, 12))
    assert [d.label for d in parsed.detections] == ["car", "car", "dog"]


def test_inverted_boxes_are_put_upright() -> None:
    assert ours_boxes(boxes("car" + locations(9, 8, 3, 2))) == [("car", [3, 2, 9, 8])]


def test_letters_beyond_ascii_are_kept() -> None:
    assert boxes("café" + locations(1, 2, 3, 4) + "日本" + locations(1, 2, 3, 4)).detections[0].label == "café"
    assert quads("Grüße" + locations(*range(8))).detections[0].text == "Grüße"


def test_text_that_looks_like_a_location_is_text() -> None:
    """Text can spell what a special token spells; their ids differ, but in the reference's text they do not."""
    spelled = [
        token for letter in "<loc_1>" for token in VOCABULARY.tokenizer.encode(letter, add_special_tokens=False).ids
    ]
    parsed = read_boxes(runs([*spelled, *ids(locations(1, 2, 3, 4))], VOCABULARY), finished=True)
    assert [d.label for d in parsed.detections] == ["<loc_1>"]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("car" + locations(1, 2, 3, 4) + "dog", ["car"]),
        ("car" + locations(1, 2, 3, 4) + "dog" + locations(1, 2, 3), ["car"]),
        ("car" + locations(1, 2, 3, 4, 5, 6), ["car"]),
        ("car" + locations(1, 2) + "dog" + locations(1, 2, 3, 4), ["dog"]),
        (locations(1, 2, 3, 4), []),
        (locations(1, 2, 3, 4, 5), []),
        ("car", []),
    ],
)
def test_incomplete_objects_are_left_out_and_reported(text: str, labels: list[str]) -> None:
    parsed = boxes(text)
    assert [d.label for d in parsed.detections] == labels
    assert parsed.truncated


def test_an_empty_answer_is_complete() -> None:
    for tokens in ((), (0, 2), (2, 0, 1, 1, 2)):
        assert read_boxes(runs(tokens, VOCABULARY), finished=True) == Parsed(None)


def test_an_answer_that_was_cut_may_have_no_objects() -> None:
    assert boxes("car" + locations(1, 2, 3, 4), finished=False).truncated
    assert quads("STOP" + locations(*range(8)), finished=False).truncated


def test_other_special_tokens_end_a_run() -> None:
    od = THEIRS.tokenizer.convert_tokens_to_ids("<od>")
    tokens = [*ids("car"), od, *ids("dog" + locations(1, 2, 3, 4)), od, *ids(locations(5, 6, 7, 8))]
    assert runs(tokens, VOCABULARY) == (Run("car", ()), Run("dog", (1, 2, 3, 4)), Run("", (5, 6, 7, 8)))
    parsed = read_boxes(runs(tokens, VOCABULARY), finished=True)
    assert ([d.label for d in parsed.detections], parsed.truncated) == (["dog"], True)


def test_silent_tokens_vanish_even_inside_a_word() -> None:
    c, *rest = ids("circle")
    assert runs([2, 0, c, 1, *rest, 2, *ids(locations(1, 2))], VOCABULARY) == (Run("circle", (1, 2)),)


def test_a_quadrilateral_has_its_words_corners_and_enclosing_box() -> None:
    parsed = quads("STOP" + locations(100, 200, 300, 210, 290, 400, 110, 390))
    (sign,) = parsed.detections
    assert (sign.kind, sign.text, sign.label, parsed.text) == ("quad", "STOP", None, None)
    assert [(p.x, p.y) for p in sign.quad or ()] == [
        (0.1005, 0.2005),
        (0.3005, 0.2105),
        (0.2905, 0.4005),
        (0.1105, 0.3905),
    ]
    assert sign.box == Box(0.1005, 0.2005, 0.3005, 0.4005)


@pytest.mark.parametrize("count", [7, 9, 16])
def test_a_text_has_one_quadrilateral(count: int) -> None:
    parsed = quads("STOP" + locations(*range(count)) + "EXIT" + locations(*range(8)))
    assert [d.text for d in parsed.detections] == (["EXIT"] if count < 8 else ["STOP", "EXIT"])
    assert parsed.truncated


def test_phrases_carry_their_span_in_the_caption() -> None:
    caption = "A red car beside a dog."
    parsed = phrases("a dog" + locations(1, 2, 3, 4) + " a red car" + locations(*range(8)), caption)
    assert parsed.text == caption
    spans = [caption[start:end] for detection in parsed.detections for start, end in detection.spans]
    assert spans == ["a dog", "A red car", "A red car"]


def test_a_repeated_phrase_moves_on_in_the_caption() -> None:
    caption = "a car, a dog and a car"
    found = phrases("".join(f"{phrase}{locations(1, 2, 3, 4)}" for phrase in ("a car", "a dog", "a car")), caption)
    assert [d.spans for d in found.detections] == [((0, 5),), ((7, 12),), ((17, 22),)]


def test_a_phrase_within_the_one_before_it_is_another_one() -> None:
    caption = "a red car and a car"
    found = phrases("".join(f"{phrase}{locations(1, 2, 3, 4)}" for phrase in ("a red car", "car")), caption)
    assert [d.spans for d in found.detections] == [((0, 9),), ((16, 19),)]


def test_a_phrase_is_found_as_whole_words_and_by_code_points() -> None:
    caption = "scarf 🚗 İ car"
    (car,) = phrases("car" + locations(1, 2, 3, 4), caption).detections
    assert [caption[start:end] for start, end in car.spans] == ["car"]
    assert car.spans == ((10, 13),)


@pytest.mark.parametrize("phrase", ["a cat", "(", "c.r"])
def test_a_phrase_that_is_not_in_the_caption_has_no_span(phrase: str) -> None:
    (found,) = phrases(phrase + locations(1, 2, 3, 4), "a red car").detections
    assert (found.label, found.spans) == (phrase, ())


def test_phrases_that_name_nothing_are_dropped_without_truncation() -> None:
    parsed = phrases("it" + locations(1, 2, 3, 4) + " the image " + locations(1, 2, 3, 4), "it is the image")
    assert (parsed.detections, parsed.truncated) == ((), False)
