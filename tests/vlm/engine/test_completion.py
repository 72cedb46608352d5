"""Scores in answers: forced tokens give none, and a threshold leaves out those below it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.images import hand_drawn
from tests.oracle import MINIATURES, ask_all
from tests.vlm.engine.world import miniature
from vlm.engine.completion import _within
from vlm.engine.engine import Engine
from vlm.types import Detection, Grounding, Request, Sampling, Task

FLORENCE = MINIATURES / "florence-2-base"
ONE_BEAM = Sampling(num_beams=1)
OBJECTS = Request(hand_drawn(), task=Task("detect"), sampling=ONE_BEAM)


def asked(*requests: Request) -> list[tuple[Detection, ...]]:
    return [grounding.detections for grounding in groundings(*requests)]


def groundings(*requests: Request) -> list[Grounding]:
    async def together(engine: Engine) -> list[Grounding]:
        answers = await asyncio.gather(*map(engine.complete, requests))
        return [answer.grounding for answer in answers]

    with Engine(miniature("florence-2-base")) as engine:
        return asyncio.run(together(engine))


def with_threshold(threshold: float) -> Request:
    return replace(OBJECTS, task=Task("detect", threshold=threshold))


def test_objects_below_the_threshold_are_left_out() -> None:
    [every] = asked(OBJECTS)
    scores = sorted(found.score or 0 for found in every)
    assert len(every) == 2
    assert 0 < scores[0] < scores[1] < 1
    middle = sum(scores) / 2
    none_out, one_out, all_out = asked(*map(with_threshold, (0.0, middle, 1.0)))
    assert [found.label for found in none_out] == [found.label for found in every]
    assert [found.label for found in one_out] == [found.label for found in every if (found.score or 0) > middle]
    assert all_out == ()


def test_objects_that_are_left_out_are_counted() -> None:
    [every] = groundings(OBJECTS)
    middle = sum(found.score or 0 for found in every.detections) / 2
    found = groundings(*map(with_threshold, (0.0, middle, 1.0)))
    assert [(len(one.detections), one.below_threshold) for one in (every, *found)] == [(2, 0), (2, 0), (1, 1), (0, 2)]


@pytest.mark.parametrize("beams", [1, 3])
def test_forced_locations_have_no_score_and_stay_whatever_the_threshold(beams: int) -> None:
    processor = miniature("florence-2-base").processor
    [plain] = ask_all(FLORENCE, [replace(OBJECTS, sampling=Sampling(num_beams=beams))])
    ids = plain.token_ids
    forced = next(index for index, token in enumerate(ids) if processor.decode([token], special=True) == "square")
    sampling = Sampling(forced_tokens=ids[:forced], num_beams=beams)
    [found] = asked(replace(with_threshold(0.0001), sampling=sampling))
    assert [one.score is None for one in found] == [True, False]
    [found] = asked(replace(with_threshold(1.0), sampling=sampling))
    assert [one.score for one in found] == [None]


def test_a_location_at_the_forced_end_has_no_score() -> None:
    [plain] = ask_all(FLORENCE, [OBJECTS])
    last = plain.token_ids[5]  # <s> circle and four bins
    sampling = replace(ONE_BEAM, max_tokens=6, forced_last_token=last)
    [[found]] = asked(replace(OBJECTS, sampling=sampling))
    assert (found.label, found.box, found.score) == ("circle", plain.grounding.detections[0].box, None)


def test_scores_are_there_without_log_probabilities_in_the_answer() -> None:
    silent, spoken = ask_all(FLORENCE, [OBJECTS, replace(OBJECTS, sampling=replace(ONE_BEAM, logprobs=True))])
    assert (silent.logprobs, len(spoken.logprobs)) == ((), len(spoken.token_ids))
    for one, other in zip(silent.grounding.detections, spoken.grounding.detections, strict=True):
        assert one.score == pytest.approx(other.score)


def test_an_object_at_the_threshold_is_kept() -> None:
    [every] = asked(OBJECTS)
    highest = max(found.score or 0 for found in every)
    [[kept]] = asked(with_threshold(highest))
    assert kept.score == highest


def test_a_stop_string_is_ignored_where_an_answer_has_no_text() -> None:
    caption = Request(hand_drawn(), task=Task("caption"), sampling=replace(ONE_BEAM, stop=("zebra",)))
    objects = replace(OBJECTS, sampling=replace(ONE_BEAM, stop=("zebra",)))
    assert [answer.ignored for answer in ask_all(FLORENCE, [caption, objects])] == [(), ("stop",)]


def test_an_answer_that_is_cut_is_truncated_even_between_two_objects() -> None:
    [whole] = ask_all(FLORENCE, [OBJECTS])
    assert not whole.grounding.truncated
    lengths = range(2, len(whole.token_ids))
    cut = ask_all(FLORENCE, [replace(OBJECTS, sampling=replace(ONE_BEAM, max_tokens=length)) for length in lengths])
    assert all(answer.finish_reason == "length" and answer.grounding.truncated for answer in cut)


def test_a_span_may_end_with_the_text_and_not_beyond_it() -> None:
    found = Detection("box", label="a circle", spans=((0, 3), (4, 12), (4, 13)))
    assert _within(found, 12).spans == ((0, 3), (4, 12))


@pytest.mark.parametrize("model", ["florence-2-base", "kosmos-2", "moondream-2"])
def test_labels_come_back_as_they_were_written(model: str) -> None:
    """Whatever a tokenizer makes of them."""
    written = "SQUARE "
    task = Task("detect", labels=(written,))
    several = replace(task, labels=(written, "Circle"))
    one, two = ask_all(MINIATURES / model, [Request(hand_drawn(), task=task), Request(hand_drawn(), task=several)])
    assert {found.label for found in one.grounding.detections} <= {written}
    assert {found.label for found in two.grounding.detections} <= {written, "Circle"}
    assert two.grounding.detections
