"""A thought's text and its parts: the same whether it is read at once or while it grows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vlm.models.moondream2.driver import golden
from vlm.engine.output import OutputText
from vlm.engine.sequence import Sequence
from vlm.models.processor import Inputs
from vlm.types import Request, Sampling, Task

ANSWER, POINTS, GROUND = 3, 7, 9
PROCESSOR = golden()[1]
WORDS = PROCESSOR.places.words
HALF, OTHER_HALF = PROCESSOR.vocabulary.encode("é")


@cache
def inputs() -> Inputs:
    return PROCESSOR.prepare(Request(None, task=Task("query", text="Why?", reasoning=True)))


thoughts = st.lists(
    st.one_of(
        st.integers(0, WORDS - 1),
        st.integers(WORDS, WORDS + 1023),
        st.sampled_from([POINTS, GROUND, HALF, OTHER_HALF]),
    ).filter(lambda token: token != ANSWER),
    max_size=30,
)
answers = st.lists(st.integers(0, WORDS - 1), max_size=10)


def growing() -> Sequence:
    return Sequence(inputs(), Sampling(), OutputText(PROCESSOR.decode, inputs()))


@settings(deadline=None)
@given(thoughts, st.none() | answers)
def test_pieces_of_a_thought_joined_are_what_is_read_at_once(thought: list[int], answer: list[int] | None) -> None:
    """Half characters, stray bytes and marks anywhere; the answer may lack."""
    ids = thought if answer is None else [*thought, ANSWER, *answer]
    sequence = growing()
    said = [sequence.output.append(token) for token in ids] + [sequence.output.finish()]
    parsed = PROCESSOR.parse(ids, inputs(), finished=True)
    assert "".join(piece.reasoning for piece in said) == parsed.reasoning
    assert "".join(piece.text for piece in said) == parsed.text
    sequence.generated.extend(ids)
    assert sequence.reasoning_tokens == len(thought) + (answer is not None)


@settings(deadline=None)
@given(thoughts)
def test_spans_lie_in_order_within_the_thought(thought: list[int]) -> None:
    parsed = PROCESSOR.parse([*thought, ANSWER], inputs(), finished=True)
    spans = [found.spans[0] for found in parsed.detections]
    assert spans == sorted(spans)
    assert parsed.reasoning is not None
    for found, (start, end) in zip(parsed.detections, spans, strict=True):
        assert 0 <= start <= end <= len(parsed.reasoning)
        assert found.label == (parsed.reasoning[start:end].strip() or None)


def test_a_mark_within_a_character_leaves_it_whole() -> None:
    ids = [HALF, POINTS, WORDS + 512, WORDS + 256, OTHER_HALF, GROUND, ANSWER]
    parsed = PROCESSOR.parse(ids, inputs(), finished=True)
    assert parsed.reasoning == "é"
    [found] = parsed.detections
    assert (found.point is not None, found.spans) == (True, ((1, 1),))


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
def test_a_short_thought_is_half_of_what_may_be_written(max_tokens: int) -> None:
    request = Request(None, task=Task("query", text="Why?", reasoning=True), sampling=Sampling(max_tokens=max_tokens))
    asked = PROCESSOR.prepare(request)
    assert asked.max_reasoning_tokens == (max_tokens - 1) // 2
    assert replace(inputs(), max_reasoning_tokens=asked.max_reasoning_tokens) == asked
