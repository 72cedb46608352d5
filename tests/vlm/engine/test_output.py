"""The text of one answer: what belongs to the reasoning and what to the answer, and what chunks have carried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlm.engine.output import NOTHING, OutputText, TextDelta
from vlm.models.processor import Inputs

END = 0
PLAIN = Inputs(None, (7, 8, 9), (), "query", "", "default", None, 0, 3)
REASONING = replace(PLAIN, reasoning_end_id=END)


def decode(token_ids: Sequence[int], *, special: bool = False) -> str:
    """A letter a token, a space for the end of the reasoning."""
    return "".join(" abcdefghij"[token] for token in token_ids)


def deltas(output: OutputText, *tokens: int) -> list[TextDelta]:
    return [*(output.append(token) for token in tokens), output.finish()]


def test_all_is_the_answer_where_the_model_does_not_reason() -> None:
    output = OutputText(decode, PLAIN)
    assert output.in_answer
    assert deltas(output, 1, 2) == [TextDelta("a"), TextDelta("b"), TextDelta()]
    assert output.text == "ab"


def test_the_end_of_the_prompt_leads_where_it_is_echoed() -> None:
    output = OutputText(decode, replace(PLAIN, echo=2))
    assert deltas(output, 1)[0] == TextDelta("hia")
    assert output.text == "hia"


def test_what_comes_before_the_end_of_the_reasoning_is_reasoning() -> None:
    output = OutputText(decode, REASONING)
    assert deltas(output, 1, 2, END, 3) == [
        TextDelta(reasoning="a"), TextDelta(reasoning="b"), TextDelta(), TextDelta("c"), TextDelta()
    ]  # fmt: skip
    assert output.in_answer
    assert output.text == "c"


def test_reasoning_that_does_not_end_leaves_no_answer() -> None:
    output = OutputText(decode, REASONING)
    assert "".join(one.reasoning for one in deltas(output, 1, 2)) == "ab"
    assert (output.in_answer, output.text) == (False, "")


def test_reasoning_is_left_out_where_nothing_is_streamed() -> None:
    output = OutputText(decode, REASONING, stream=False)
    assert deltas(output, 1, END, 3) == [NOTHING, NOTHING, NOTHING, TextDelta("c")]


def test_text_that_nobody_reads_as_it_grows_is_decoded_once() -> None:
    decoded: list[int] = []

    def counted(token_ids: Sequence[int]) -> str:
        decoded.append(len(token_ids))
        return decode(token_ids)

    output = OutputText(counted, PLAIN, stream=False)
    del decoded[:]
    assert deltas(output, 1, 2, 3) == [NOTHING, NOTHING, NOTHING, TextDelta("abc")]
    assert sum(decoded) == 3
    assert output.text == "abc"


def test_a_stop_string_is_found_where_nothing_is_streamed() -> None:
    output = OutputText(decode, PLAIN, ("b",), stream=False)
    stopped = []
    for token in (1, 2):
        output.append(token)
        stopped.append(output.stopped)
    assert stopped == [False, True]
    assert output.text == "a"


def test_geometry_has_no_text_and_no_stop_string() -> None:
    output = OutputText(decode, replace(PLAIN, has_text=False), ("b",))
    assert not any(deltas(output, 1, 2, 3))
    assert not output.stopped


def test_a_stop_string_ends_the_answer_and_not_the_reasoning() -> None:
    output = OutputText(decode, REASONING, ("b",))
    for token in (1, 2, END, 1):
        output.append(token)
        assert not output.stopped
    output.append(2)
    assert output.stopped
    assert output.text == "a"


def test_deltas_are_added_and_empty_ones_are_false() -> None:
    assert TextDelta("a", "x") + TextDelta("b", "y") == TextDelta("ab", "xy")
    assert (bool(TextDelta()), bool(TextDelta("a")), bool(TextDelta(reasoning="a"))) == (False, True, True)


def test_each_token_is_reported_once() -> None:
    output = OutputText(decode, PLAIN)
    assert [output.report(2), output.report(2), output.report(5)] == [0, 2, 2]
