"""Requests to numbers, and ids to answers, with the small model's tokenizer."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tests.images import encoded, exif_of
from tests.vlm.models.moondream2.driver import DATA, golden, golden_image
from vlm.checkpoint.files import Checkpoint
from vlm.errors import InvalidImage, InvalidRequest, UnsupportedTask
from vlm.image.decode import ImageLimits
from vlm.models.moondream2.processor import MAX_NEW_TOKENS, Moondream2Processor
from vlm.models.processor import Inputs, Processor
from vlm.types import Box, Point, Request, Sampling, Task

OURS = golden()[1]
PNG = golden_image("small_224x160")
VOCABULARY, BINS = 1024, 1024


def prepared(task: Task, image: bytes | None = PNG, **sampling: Any) -> Inputs:
    return OURS.prepare(Request(image, task=task, sampling=Sampling(**sampling)))


def test_it_is_a_processor() -> None:
    processor: Processor = OURS  # mypy checks the contract
    assert processor.tasks == ("caption", "detect", "ground", "point", "query")


def test_an_image_stands_before_the_prompt() -> None:
    inputs = prepared(Task("caption"))
    assert inputs.pixels is not None
    assert inputs.pixels.shape == (3, 378, 378)
    assert inputs.pixels.dtype == np.uint8
    assert (inputs.image_size, inputs.image_tokens, inputs.text_tokens) == ((224, 160), 730, 5)
    assert (inputs.has_text, inputs.scored, inputs.limit, inputs.max_reasoning_tokens, inputs.reasoning_end_id) == (
        True, False, None, None, None,
    )  # fmt: skip


def test_without_an_image_the_prompt_begins_at_the_beginning() -> None:
    inputs = prepared(Task("query", text="is there a dog"), image=None)
    assert inputs.prompt_ids[:2] == (0, 1)
    assert (inputs.pixels, inputs.image_size, inputs.image_tokens) == (None, None, 0)
    assert inputs.text_tokens == len(inputs.prompt_ids)


def test_geometry_is_scored_and_bounded() -> None:
    detect = prepared(Task("detect", labels=("dog",)))
    point = prepared(Task("point", labels=("dog",), max_objects=7))
    assert (detect.has_text, detect.scored, detect.limit, detect.native_task) == (False, True, 150, "detect")
    assert (point.has_text, point.scored, point.limit, point.native_task) == (False, True, 14, "point")
    ground = prepared(Task("ground", text="dog"))
    assert (ground.task, ground.native_task, ground.prompt_ids) == ("ground", "detect", detect.prompt_ids)


def test_references_are_placeholders_and_their_numbers() -> None:
    inputs = prepared(Task("query", text="dog", references=(Box(0.1, 0.2, 0.5, 0.9), Point(0.7, 0.3))))
    assert inputs.prompt_ids[3:8] == (5, 5, 6, 5, 5)
    assert [list(one) for one in inputs.values] == [
        pytest.approx(one) for one in ([0.3], [0.55], [0.4, 0.7], [0.7], [0.3])
    ]


@pytest.mark.parametrize(("most", "max_reasoning"), [(None, (MAX_NEW_TOKENS - 1) // 2), (97, 48), (1, 0)])
def test_half_of_the_tokens_may_be_reasoning(most: int | None, max_reasoning: int) -> None:
    inputs = prepared(Task("query", text="dog", reasoning=True), max_tokens=most)
    assert (inputs.max_reasoning_tokens, inputs.reasoning_end_id, inputs.scored, inputs.has_text) == (
        max_reasoning,
        3,
        True,
        True,
    )
    assert inputs.prompt_ids[-2:] == (3, 4)


def test_reasoning_never_uses_up_the_context() -> None:
    inputs = prepared(Task("query", text="dog", reasoning=True), max_tokens=5000)
    assert inputs.max_reasoning_tokens == (2048 - 730 - len(inputs.prompt_ids) - 1) // 2


def test_a_prompt_must_leave_room_for_an_answer() -> None:
    room = 2048 - 730
    fixed = len(prepared(Task("query", text="0")).prompt_ids) - 1
    longest = prepared(Task("query", text="0" * (room - 1 - fixed)))
    assert len(longest.prompt_ids) == room - 1
    with pytest.raises(InvalidRequest) as caught:
        prepared(Task("query", text="0" * (room - fixed)))
    assert caught.value.code == "context_length_exceeded"


def test_images_are_upright_and_have_no_alpha() -> None:
    """The original leaves an image as its camera lay."""
    image = Image.new("RGBA", (400, 900), (200, 10, 10, 0))
    inputs = OURS.prepare(Request(encoded(image, exif=exif_of(6))))
    assert inputs.image_size == (900, 400)
    assert inputs.pixels is not None
    assert inputs.pixels[0, -378:, :378].min() > 191


def test_errors_are_those_of_the_contract() -> None:
    with pytest.raises(InvalidImage):
        OURS.prepare(Request(PNG[:500]))
    with pytest.raises(UnsupportedTask):
        prepared(Task("ocr"))
    strict = Moondream2Processor.from_checkpoint(Checkpoint.open(DATA), ImageLimits(max_pixels=100))
    with pytest.raises(InvalidImage, match="100 pixels"):
        strict.prepare(Request(PNG))


def coordinate(number: int) -> int:
    return VOCABULARY + number


def size(width: int, height: int) -> int:
    return VOCABULARY + BINS + width * 1024 + height


def test_a_box_is_clipped_and_has_a_score() -> None:
    inputs = prepared(Task("detect", labels=("red square",)))
    ids = [coordinate(0), coordinate(512), size(1023, 920), 0]
    parsed = OURS.parse(ids, inputs, finished=True, logprobs=[-0.1, -0.2, -0.5, 0.0])
    [found] = parsed.detections
    assert (found.kind, found.label, found.box) == (
        "box",
        "red square",
        Box(0.0, 0.5 - _half(920), 0.5, 0.5 + _half(920)),
    )
    assert found.score == pytest.approx(np.exp((-0.1 - 0.2 - 0.5) / 4))
    assert (parsed.text, parsed.truncated) == (None, False)
    assert OURS.reader.corners(ids) == [(-0.5, 0.5 - _half(920), 0.5, 0.5 + _half(920))]


def _half(bin_: int) -> float:
    return float(2.0 ** (bin_ / 1023 * 10 - 10) / 2)


def test_points_have_the_label_and_their_score() -> None:
    inputs = prepared(Task("point", labels=("dog",)))
    ids = [coordinate(1), coordinate(2), coordinate(3), coordinate(4), 0]
    parsed = OURS.parse(ids, inputs, finished=True, logprobs=[-1.0, -3.0, 0.0, 0.0, 0.0])
    assert [(one.point, one.label) for one in parsed.detections] == [
        (Point(1 / 1024, 2 / 1024), "dog"), (Point(3 / 1024, 4 / 1024), "dog"),
    ]  # fmt: skip
    assert [one.score for one in parsed.detections] == [pytest.approx(np.exp(-2)), 1.0]


def test_a_special_token_in_a_label_is_ordinary_characters() -> None:
    label = "<|md_reserved_2|> dog"
    inputs = prepared(Task("detect", labels=(label,)))
    assert inputs.prompt_ids.count(3) == 1
    [found] = OURS.parse([coordinate(1), coordinate(2), size(3, 4)], inputs, finished=False).detections
    assert (found.label, found.score) == (label, None)


@pytest.mark.parametrize("count", range(1, 8))
def test_an_answer_that_was_cut_keeps_its_whole_objects(count: int) -> None:
    ids = [coordinate(1), coordinate(2), size(3, 4), coordinate(1), coordinate(2), size(3, 4), 0][:count]
    parsed = OURS.parse(ids, prepared(Task("detect", labels=("dog",))), finished=False)
    assert len(parsed.detections) == count // 3
    assert parsed.truncated == (count % 3 != 0 and count != 7)


def test_reasoning_has_parts_and_points_and_then_the_answer() -> None:
    inputs = prepared(Task("query", text="dog", reasoning=True))
    words = OURS.vocabulary.encode
    ids = [
        *words("see "), 7, *words("the dog"), coordinate(1), coordinate(2), coordinate(3), 9, *words(" there"),
        coordinate(4), coordinate(5), 3, *words(" a dog"), 0,
    ]  # fmt: skip
    logprobs = [-float(index) for index in range(len(ids))]
    parsed = OURS.parse(ids, inputs, finished=True, logprobs=logprobs)
    assert (parsed.reasoning, parsed.text, parsed.truncated) == ("see the dog there", "a dog", False)
    assert [(one.label, one.spans, one.point) for one in parsed.detections] == [
        ("the dog", ((4, 11),), Point(1 / 1024, 2 / 1024)),
        ("there", ((11, 17),), Point(4 / 1024, 5 / 1024)),
    ]
    first = ids.index(coordinate(1))
    assert parsed.detections[0].score == pytest.approx(np.exp(-first - 0.5))


def test_reasoning_that_was_cut_has_no_answer() -> None:
    parsed = OURS.parse(
        [*OURS.vocabulary.encode("see")], prepared(Task("query", text="a", reasoning=True)), finished=False
    )
    assert (parsed.reasoning, parsed.text, parsed.truncated) == ("see", "", True)


SIZES, END = VOCABULARY + BINS, VOCABULARY + BINS + 1024**2
COORDINATE, SIZE = st.integers(VOCABULARY, SIZES - 1), st.integers(SIZES, END - 1)
ANY_ID = st.one_of(
    COORDINATE,
    COORDINATE,
    SIZE,
    st.integers(0, 30),
    st.sampled_from((VOCABULARY - 1, END, END + 9)),
    st.integers(0, END),
)
DETECT, POINT = Task("detect", labels=("dog",)), Task("point", labels=("dog",))
OBJECTS = {"detect": "(?:xxs)*", "point": "(?:xx)*"}


def leading_objects(task: Task, ids: list[int]) -> int:
    """Number of ids at the beginning that are whole objects."""
    kinds = "".join("x" if VOCABULARY <= one < SIZES else "s" if SIZES <= one < END else "-" for one in ids)
    found = re.match(OBJECTS[task.name], kinds)
    assert found is not None
    return found.end()


@example(ids=[VOCABULARY], task=DETECT, finished=True)
@example(ids=[VOCABULARY] * 2, task=DETECT, finished=True)
@example(ids=[VOCABULARY] * 2 + [END], task=DETECT, finished=True)
@example(ids=[VOCABULARY] * 3, task=POINT, finished=False)
@given(
    ids=st.lists(ANY_ID, max_size=40),
    task=st.sampled_from([Task("query", text="dog", reasoning=True), DETECT, POINT, Task("caption")]),
    finished=st.booleans(),
)
def test_any_ids_can_be_read(ids: list[int], task: Task, finished: bool) -> None:
    parsed = OURS.parse(ids, prepared(task), finished=finished, logprobs=[-0.5] * len(ids))
    if task.name in OBJECTS:
        whole = leading_objects(task, ids)
        assert len(parsed.detections) == whole // (3 if task.name == "detect" else 2)
        assert parsed.truncated == any(ids[whole:]), "only the end of text, 0, may follow"
    reasoning = parsed.reasoning or ""
    for found in parsed.detections:
        steps = [-0.5, -0.5, -0.25, -0.25] if task.name == "detect" else [-0.5]  # a size is two numbers
        assert found.score == pytest.approx(np.exp(np.mean(steps)))
        assert all(0 <= start <= end <= len(reasoning) for start, end in found.spans)
        assert found.box is None or 0 <= found.box.x_min <= found.box.x_max <= 1
    assert isinstance(OURS.decode(ids, special=True), str)
