"""Which of Florence-2's tokens make up the score of which object; with scores, answers are otherwise the same."""

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
from vlm.models.florence2.processor import Florence2Processor
from vlm.models.florence2.tasks import BY_TOKEN, TASKS, NativeTask
from vlm.models.processor import Inputs, Parsed
from vlm.types import Request, Task

FOLDER = Path(__file__).parents[4] / "miniatures" / "florence-2-base"
OURS = Florence2Processor.from_checkpoint(Checkpoint.open(FOLDER))
BINS = sorted(OURS.vocabulary.bins)
SPECIAL_TOKENS = sorted(OURS.vocabulary.special_tokens)
BOS, EOS = OURS.vocabulary.bos, OURS.vocabulary.eos
REGION = "<loc_100><loc_200><loc_300><loc_400>"
LOCATION, WORDS, OTHER = 0.5, 0.9, 0.001  # probabilities of tokens, by what they are

TOKEN = st.one_of(st.integers(0, 1599), st.sampled_from(BINS), st.sampled_from(SPECIAL_TOKENS))
LOGPROB = st.one_of(st.floats(-40, 0), st.just(math.nan), st.just(-math.inf))


@cache
def inputs_of(token: str) -> Inputs:
    task = BY_TOKEN[token]
    argument = REGION if task.region else " a red car" if task.takes_argument else ""
    return OURS.prepare(Request(plain(32, 32), token + argument))


def tokens(*parts: str) -> list[int]:
    """Ids of text; a number stands for that many bins, a special token for itself."""
    ids: list[int] = []
    for part in parts:
        special = OURS.vocabulary.tokenizer.token_to_id(part) if part.startswith("<") else None
        ids += (
            [special] if special is not None else BINS[: int(part)] if part.isdigit() else OURS.vocabulary.encode(part)
        )
    return [BOS, *ids, EOS]


def likely(ids: Sequence[int]) -> list[float]:
    """Log-probabilities that show which tokens a score is made of."""
    known = OURS.vocabulary
    silent = {BOS, EOS, *known.special_tokens}
    return [math.log(OTHER if one in silent else LOCATION if one in known.bins else WORDS) for one in ids]


def read(token: str, ids: list[int], logprobs: Sequence[float] | None = None) -> Parsed:
    return OURS.parse(ids, inputs_of(token), finished=True, logprobs=likely(ids) if logprobs is None else logprobs)


def scores(parsed: Parsed) -> list[float | None]:
    return [found.score for found in parsed.detections]


def named(label: str) -> float:
    """The score of an object that is called so."""
    return LOCATION * WORDS ** len(OURS.vocabulary.encode(label))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.token)
def test_tasks_with_objects_are_scored(task: NativeTask) -> None:
    assert inputs_of(task.token).scored == (task.answer != "text")
    assert inputs_of(task.token).has_text == (not inputs_of(task.token).scored)


@pytest.mark.parametrize("token", ["<OD>", "<DENSE_REGION_CAPTION>", "<OPEN_VOCABULARY_DETECTION>"])
def test_every_box_has_the_label_that_it_shares(token: str) -> None:
    parsed = read(token, tokens("red circle", "8", "star", "4"))
    assert scores(parsed) == pytest.approx([named("red circle"), named("red circle"), named("star")])


def test_each_box_has_its_own_bins() -> None:
    ids = tokens("star", "8")
    logprobs = likely(ids)
    index = ids.index(BINS[4])  # the first bin of the second box
    logprobs[index] += 4 * math.log(0.1)
    assert scores(read("<OD>", ids, logprobs)) == pytest.approx([named("star"), named("star") * 0.1])


def test_phrases_and_words_in_quads_have_their_words() -> None:
    grounded = read("<CAPTION_TO_PHRASE_GROUNDING>", tokens("a red car", "4", "it", "4", "red", "4"))
    assert scores(grounded) == pytest.approx([named("a red car"), named("red")])
    assert scores(read("<OCR_WITH_REGION>", tokens("STOP", "8"))) == pytest.approx([named("STOP")])


def test_regions_have_no_words() -> None:
    assert scores(read("<REGION_PROPOSAL>", tokens("8"))) == pytest.approx([LOCATION, LOCATION])


def test_polygons_have_all_bins_of_their_object() -> None:
    parsed = read("<REFERRING_EXPRESSION_SEGMENTATION>", tokens("6", "<sep>", "7"))
    assert scores(parsed) == pytest.approx([LOCATION])
    parsed = read("<REGION_TO_SEGMENTATION>", tokens("<poly>", "6", "</poly>", "<poly>", "8", "</poly>"))
    assert scores(parsed) == pytest.approx([LOCATION, LOCATION])
    answer = tokens("red car", "<poly>", "6", "<sep>", "6", "</poly>", "<poly>", "6", "</poly>")
    parsed = read("<OPEN_VOCABULARY_DETECTION>", answer)
    assert scores(parsed) == pytest.approx([named("red car")] * 2)


def test_a_bin_that_makes_no_corner_has_no_part_in_it() -> None:
    ids = tokens("7")
    logprobs = likely(ids)
    logprobs[-2] = -9
    assert scores(read("<REGION_TO_SEGMENTATION>", ids, logprobs)) == pytest.approx([LOCATION])


def test_a_polygon_that_is_left_out_has_no_part_in_it() -> None:
    ids = tokens("6", "<sep>", "4")
    logprobs = likely(ids)
    logprobs[-5:-1] = [-9.0] * 4
    parsed = read("<REGION_TO_SEGMENTATION>", ids, logprobs)
    assert [len(found.polygons or ()) for found in parsed.detections] == [1]
    assert scores(parsed) == pytest.approx([LOCATION])


def test_points_have_their_boxes_scores() -> None:
    ids = tokens("star", "4")
    inputs = OURS.prepare(Request(plain(32, 32), task=Task("point")))
    assert inputs.scored
    parsed = OURS.parse(ids, inputs, finished=True, logprobs=likely(ids))
    assert [found.kind for found in parsed.detections] == ["point"]
    assert scores(parsed) == pytest.approx([named("star")])


@pytest.mark.parametrize("token", ["<REGION_TO_DESCRIPTION>", "<REGION_TO_CATEGORY>"])
def test_a_region_that_was_asked_about_has_none(token: str) -> None:
    assert scores(read(token, tokens("a red car", "4"))) == [None]


def test_there_is_none_without_a_log_probability_for_each_token() -> None:
    ids = tokens("star", "4")
    for logprobs in ((), likely(ids)[:-1], [*likely(ids), -1.0]):
        assert scores(read("<OD>", ids, logprobs)) == [None]


def test_there_is_none_where_a_bin_was_forced() -> None:
    ids = tokens("star", "8")
    logprobs = likely(ids)
    logprobs[ids.index(BINS[1])] = math.nan
    assert scores(read("<OD>", ids, logprobs)) == [None, pytest.approx(named("star"))]


def test_a_threshold_is_reported_as_ignored_where_there_are_no_objects() -> None:
    for name, ignored in (("detect", ()), ("point", ()), ("caption", ("task.threshold",))):
        assert OURS.prepare(Request(plain(32, 32), task=Task(name, threshold=0.1))).ignored == ignored


@settings(max_examples=150, deadline=None)
@given(
    given=st.lists(st.tuples(TOKEN, LOGPROB), max_size=50),
    token=st.sampled_from([task.token for task in TASKS]),
    finished=st.booleans(),
)
def test_whatever_is_written_scores_are_sound_and_change_nothing_else(
    given: list[tuple[int, float]], token: str, finished: bool
) -> None:
    ids, logprobs = [one for one, _ in given], [one for _, one in given]
    scored = OURS.parse(ids, inputs_of(token), finished=finished, logprobs=logprobs)
    plain = OURS.parse(ids, inputs_of(token), finished=finished)
    assert all(score is None or 0 <= score <= 1 for score in scores(scored))
    assert set(scores(plain)) <= {None}
    assert replace(scored, detections=tuple(replace(one, score=None) for one in scored.detections)) == plain
