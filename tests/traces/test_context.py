"""The header ``traceparent``, read as the W3C says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.context import MAX_CHARS, Context, context_in

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_header_is_read_and_written() -> None:
    found = context_in([GOOD])
    assert found == Context(TRACE, SPAN, sampled=True)
    assert found is not None
    assert found.header == GOOD


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_one_bit_says_that_it_is_sampled(flags: str, sampled: bool) -> None:
    found = context_in([GOOD[:-2] + flags])
    assert found is not None
    assert found.sampled is sampled


def test_a_later_version_may_go_on() -> None:
    assert context_in([f"01-{TRACE}-{SPAN}-01-more"]) == Context(TRACE, SPAN, sampled=True)
    assert context_in([f"cc-{TRACE}-{SPAN}-00"]) == Context(TRACE, SPAN, sampled=False)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [GOOD, GOOD],
        [""],
        [GOOD.upper()],
        [GOOD + "-more"],
        [GOOD + "\n"],
        [" " + GOOD],
        [GOOD.replace("00-", "ff-", 1)],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE[:-1]}-{SPAN}-01"],
        [f"01-{TRACE}-{SPAN}-01more"],
        [f"01-{TRACE}-{SPAN}-01-" + "x" * MAX_CHARS],
        ["\u0660\u0660" + GOOD[2:]],
    ],
)
def test_what_is_malformed_is_no_context(values: list[str]) -> None:
    assert context_in(values) is None


@given(st.text())
def test_no_text_is_an_error(value: str) -> None:
    assert context_in([value]) is None or len(value) >= len(GOOD)


def test_new_contexts_are_well_formed_and_differ() -> None:
    made = [Context.new(sampled=True) for _ in range(100)]
    assert len({one.trace_id for one in made}) == len({one.span_id for one in made}) == 100
    assert all(context_in([one.header]) == one for one in made)
    assert Context.new(TRACE, sampled=False).trace_id == TRACE
