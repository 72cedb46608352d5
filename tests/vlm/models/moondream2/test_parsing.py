"""The text of reasoning and its parts: the same whether parsed at once or streamed."""

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
VOCABULARY = PROCESSOR.locations.vocabulary
HALF, OTHER_HALF = PROCESSOR.vocabulary.encode("é")


@cache
def inputs() -> Inputs:
    return PROCESSOR.prepare(Request(None, task=Task("query", text="Why?", reasoning=True)))


reasonings = st.lists(
    st.one_of(
        st.integers(0, VOCABULARY - 1),
        st.integers(VOCABULARY, VOCABULARY + 1023),
        st.sampled_from([POINTS, GROUND, HALF, OTHER_HALF]),
    ).filter(lambda token: token != ANSWER),
    max_size=30,
)
answers = st.lists(st.integers(0, VOCABULARY - 1), max_size=10)


def growing() -> Sequence:
    return Sequence(inputs(), Sampling(), OutputText(PROCESSOR.decode, inputs()))


@settings(deadline=None)
@given(reasonings, st.none() | answers)
def test_deltas_of_reasoning_joined_are_what_is_parsed_at_once(reasoning: list[int], answer: list[int] | None) -> None:
    """With half characters, stray bytes and special tokens anywhere, and with or without an answer."""
    ids = reasoning if answer is None else [*reasoning, ANSWER, *answer]
    sequence = growing()
    deltas = [sequence.output.append(token) for token in ids] + [sequence.output.finish()]
    parsed = PROCESSOR.parse(ids, inputs(), finished=True)
    assert "".join(delta.reasoning for delta in deltas) == parsed.reasoning
    assert "".join(delta.text for delta in deltas) == parsed.text
    sequence.generated.extend(ids)
    assert sequence.reasoning_tokens == len(reasoning) + (answer is not None)


@settings(deadline=None)
@given(reasonings)
def test_spans_lie_in_order_within_the_reasoning(reasoning: list[int]) -> None:
    parsed = PROCESSOR.parse([*reasoning, ANSWER], inputs(), finished=True)
    spans = [found.spans[0] for found in parsed.detections]
    assert spans == sorted(spans)
    assert parsed.reasoning is not None
    for found, (start, end) in zip(parsed.detections, spans, strict=True):
        assert 0 <= start <= end <= len(parsed.reasoning)
        assert found.label == (parsed.reasoning[start:end].strip() or None)


def test_a_special_token_within_a_character_does_not_split_it() -> None:
    ids = [HALF, POINTS, VOCABULARY + 512, VOCABULARY + 256, OTHER_HALF, GROUND, ANSWER]
    parsed = PROCESSOR.parse(ids, inputs(), finished=True)
    assert parsed.reasoning == "é"
    [found] = parsed.detections
    assert (found.point is not None, found.spans) == (True, ((1, 1),))


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
def test_reasoning_may_have_half_of_the_tokens(max_tokens: int) -> None:
    request = Request(None, task=Task("query", text="Why?", reasoning=True), sampling=Sampling(max_tokens=max_tokens))
    asked = PROCESSOR.prepare(request)
    assert asked.max_reasoning_tokens == (max_tokens - 1) // 2
    assert replace(inputs(), max_reasoning_tokens=asked.max_reasoning_tokens) == asked
