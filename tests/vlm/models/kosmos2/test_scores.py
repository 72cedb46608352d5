"""Which of Kosmos-2's tokens make up the score of which box; with scores, answers are otherwise the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.images import plain
from vlm.checkpoint.files import Checkpoint
from vlm.models.kosmos2.processor import Kosmos2Processor
from vlm.models.processor import Inputs, Parsed
from vlm.types import Box, Request, Task

FOLDER = Path(__file__).parents[4] / "miniatures" / "kosmos-2"
OURS = Kosmos2Processor.from_checkpoint(Checkpoint.open(FOLDER))
LOCATION, WORDS, OTHER = 0.5, 0.9, 0.001  # probabilities of tokens, by what they are
BOX = "<object><patch_index_0044><patch_index_0863></object>"
TWO = BOX.replace("</object>", "</delimiter_of_multi_objects/><patch_index_0005><patch_index_0911></object>")

TOKEN = st.one_of(
    st.integers(0, min(OURS.vocabulary.tags.values()) - 1),
    st.sampled_from(sorted(OURS.vocabulary.cells)),
    st.sampled_from(OURS.vocabulary.encode_tagged("<phrase></phrase><object></object></delimiter_of_multi_objects/>")),
)
LOGPROB = st.one_of(st.floats(-40, 0), st.just(math.nan), st.just(-math.inf))
PROMPTS = ("", "<grounding>An image of", "<grounding><phrase> a circle</phrase>", "Question: what? Answer:", "hello")
PNG = plain(32, 32)


@cache
def inputs_of(prompt: str) -> Inputs:
    return OURS.prepare(Request(PNG, prompt))


def likely(ids: Sequence[int]) -> list[float]:
    """Log-probabilities that show which tokens a score is made of."""
    known = OURS.vocabulary
    return [
        math.log(LOCATION if one in known.cells else OTHER if one in known.special_tokens else WORDS) for one in ids
    ]


def read(text: str, inputs: Inputs | None = None) -> Parsed:
    ids = OURS.vocabulary.encode_tagged(text)
    return OURS.parse(ids, inputs or inputs_of(""), finished=True, logprobs=likely(ids))


def scores(parsed: Parsed) -> list[float | None]:
    return [found.score for found in parsed.detections]


def named(phrase: str) -> float:
    """The score of a box that is called so."""
    return LOCATION * WORDS ** len(OURS.vocabulary.encode(phrase))


def test_a_box_has_its_phrase_and_its_two_cells() -> None:
    text = f"<phrase> a circle</phrase>{BOX} left of<phrase> a red square</phrase>{BOX}"
    assert scores(read(text)) == pytest.approx([named(" a circle"), named(" a red square")])


def test_several_boxes_share_their_phrase_but_not_their_cells() -> None:
    ids = OURS.vocabulary.encode_tagged(f"<phrase> two circles</phrase>{TWO}")
    logprobs = likely(ids)
    logprobs[ids.index(OURS.vocabulary.tags["<patch_index_0911>"])] += 2 * math.log(0.1)
    parsed = OURS.parse(ids, inputs_of(""), finished=True, logprobs=logprobs)
    assert scores(parsed) == pytest.approx([named(" two circles"), named(" two circles") * 0.1])


def test_a_box_without_a_phrase_has_its_cells() -> None:
    assert scores(read(f"near{BOX}")) == pytest.approx([LOCATION])


def test_a_phrase_of_the_prompt_was_not_chosen() -> None:
    inputs = OURS.prepare(Request(PNG, task=Task("ground", text="a circle")))
    parsed = read(BOX, inputs)
    assert [found.label for found in parsed.detections] == ["a circle"]
    assert scores(parsed) == pytest.approx([LOCATION])


def test_a_region_that_was_asked_about_has_none() -> None:
    inputs = OURS.prepare(Request(PNG, task=Task("region_caption", region=Box(0.1, 0.1, 0.5, 0.5))))
    parsed = read(f"<phrase> a circle</phrase>{BOX}", inputs)
    assert scores(parsed) == [None, pytest.approx(named(" a circle"))]


def test_a_box_that_the_prompt_began_has_none() -> None:
    inputs = OURS.prepare(Request(PNG, "<grounding><phrase> a circle</phrase><object><patch_index_0044>"))
    assert scores(read("<patch_index_0863></object>", inputs)) == [None]


def test_there_is_none_without_a_log_probability_for_each_token() -> None:
    ids = OURS.vocabulary.encode_tagged(BOX)
    for logprobs in ((), likely(ids)[:-1], [*likely(ids), -1.0]):
        for prompt in PROMPTS:
            assert scores(OURS.parse(ids, inputs_of(prompt), finished=True, logprobs=logprobs)) == [None]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_that_ask_for_boxes_are_scored(prompt: str) -> None:
    assert inputs_of(prompt).scored == (not prompt or "<grounding>" in prompt)


def test_a_threshold_is_reported_as_ignored_where_there_are_no_objects() -> None:
    for task, ignored in ((Task("caption"), ()), (Task("query", text="what?"), ("task.threshold",))):
        assert OURS.prepare(Request(PNG, task=replace(task, threshold=0.1))).ignored == ignored


@settings(max_examples=150, deadline=None)
@given(given=st.lists(st.tuples(TOKEN, LOGPROB), max_size=40), prompt=st.sampled_from(PROMPTS), finished=st.booleans())
def test_whatever_is_written_scores_are_sound_and_change_nothing_else(
    given: list[tuple[int, float]], prompt: str, finished: bool
) -> None:
    ids, logprobs = [one for one, _ in given], [one for _, one in given]
    scored = OURS.parse(ids, inputs_of(prompt), finished=finished, logprobs=logprobs)
    plain = OURS.parse(ids, inputs_of(prompt), finished=finished)
    assert all(score is None or 0 <= score <= 1 for score in scores(scored))
    assert set(scores(plain)) <= {None}
    assert replace(scored, detections=tuple(replace(one, score=None) for one in scored.detections)) == plain
