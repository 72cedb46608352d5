"""A repeated answer, however it is cut into chunks, goes on exactly where the client has it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.resilience.repetition import NotRepeatableError, Repetition
from tests.router.resilience.world import regrouped
from tests.router.world import chosen_script, of_choices, script, with_reasoning, words
from vlm.types import Chunk, TopLogprob

LETTERS = "red square, blue circle: ä 漢"
ANSWER = [
    *(Chunk(reasoning=f"{number} ", token_ids=(number,), logprobs=(-float(number),), token_bytes=(b"r",),
            top_logprobs=((TopLogprob(number, -1.0, b"r"),),)) for number in range(5)),
    *(Chunk(text=letter, token_ids=(100 + number, number), logprobs=(-1.0, -float(number)),
            token_bytes=(letter.encode(), b""), top_logprobs=((), (TopLogprob(number, -2.0, b""),)))
      for number, letter in enumerate(LETTERS)),
    Chunk(token_ids=(2,), logprobs=(-0.5,), token_bytes=(b"",), top_logprobs=((),), completion=words()),
]  # fmt: skip
ENDS = st.lists(st.integers(0, len(ANSWER)), max_size=8)


def sent_over(repetition: Repetition, chunks: list[Chunk]) -> list[Chunk]:
    sent: list[Chunk] = []
    send(repetition, chunks, sent)
    return sent


def send(repetition: Repetition, chunks: list[Chunk], sent: list[Chunk]) -> None:
    """Add to ``sent`` what is to be sent of ``chunks``."""
    for chunk in chunks:
        if (rest := repetition.rest_of(chunk)) is not None:
            sent += [rest]


@given(ENDS, st.lists(st.tuples(ENDS, st.integers(0, len(ANSWER) - 1)), max_size=3))
def test_all_that_is_sent_joined_is_the_answer(last: list[int], before: list[tuple[list[int], int]]) -> None:
    repetition, sent = Repetition(), []
    for cuts, end in before:  # attempts that end early
        sent += sent_over(repetition, regrouped(ANSWER[:end], cuts))
        repetition.begin_again()
    sent += sent_over(repetition, regrouped(ANSWER, last))
    assert not repetition.behind
    assert Chunk.joined(sent) == Chunk.joined(ANSWER)
    assert all(one != Chunk() for one in sent)


@given(st.randoms(use_true_random=False), st.integers(0, 12))
def test_each_choice_goes_on_by_itself(rng: random.Random, end: int) -> None:
    """The choices of another attempt advance in another order."""
    answers = [words("a red square"), with_reasoning(), words("two"), words("")]
    first, last = chosen_script(of_choices(*answers)), chosen_script(of_choices(*answers))
    *pieces, ending = last
    lanes = [[one for one in pieces if one.choices[0].index == index] for index in range(len(answers))]
    shuffled = []
    while lanes := [lane for lane in lanes if lane]:
        shuffled.append(rng.choice(lanes).pop(0))
    repetition = Repetition()
    sent = sent_over(repetition, list(first[:end]))
    repetition.begin_again()
    sent += sent_over(repetition, regrouped([*shuffled, ending], [rng.randrange(len(last)) for _ in range(3)]))
    assert Chunk.joined(sent) == Chunk.joined(first)


def test_chunks_of_a_first_attempt_are_sent_as_they_are() -> None:
    repetition = Repetition()
    for chunk in ANSWER:
        assert repetition.rest_of(chunk) is chunk


def test_a_chunk_is_split_where_the_client_has_it() -> None:
    repetition = Repetition()
    sent_over(repetition, ANSWER[:7])
    repetition.begin_again()
    assert repetition.behind
    assert repetition.rest_of(Chunk.joined(ANSWER[:4])) is None
    assert repetition.behind
    rest = repetition.rest_of(Chunk.joined(ANSWER[4:9]))
    assert rest == Chunk.joined(ANSWER[7:9])
    assert rest.reasoning == ""
    assert not repetition.behind


def changed(number: int, **fields: object) -> list[Chunk]:
    chunks = list(ANSWER)
    chunks[number] = replace(chunks[number], **fields)  # type: ignore[arg-type]
    return chunks


@pytest.mark.parametrize(
    "other",
    [
        changed(2, token_ids=(77,)),
        changed(3, reasoning="x"),
        changed(3, reasoning="8 "),
        changed(8, text="x"),
        changed(8, token_ids=(103, 77)),
        ANSWER[:4] + ANSWER[5:],
        [*ANSWER[:6], ANSWER[-1]],
        [*ANSWER[:6], Chunk(completion=words())],  # it is complete before what was sent
    ],
)
def test_another_answer_is_noticed_before_anything_of_it_is_sent(other: list[Chunk]) -> None:
    for chunks in (other, [Chunk.joined(other)]):
        repetition = Repetition()
        sent_over(repetition, ANSWER[:10])
        repetition.begin_again()
        sent: list[Chunk] = []
        with pytest.raises(NotRepeatableError):
            send(repetition, chunks, sent)
        assert not sent


@pytest.mark.parametrize(
    "ahead", [Chunk(text=LETTERS), Chunk(token_ids=(*range(5), *(100, 0, 101, 1, 102, 2, 103, 3, 104, 4, 105, 5, 9)))]
)
def test_text_and_tokens_that_do_not_grow_together_are_of_another_answer(ahead: Chunk) -> None:
    repetition = Repetition()
    sent_over(repetition, ANSWER[:10])
    repetition.begin_again()
    with pytest.raises(NotRepeatableError):
        repetition.rest_of(ahead)


def test_what_differs_beyond_what_was_sent_is_not_compared() -> None:
    repetition = Repetition()
    sent_over(repetition, ANSWER[:8])
    repetition.begin_again()
    rest = sent_over(repetition, changed(8, text="other"))
    assert rest[0].text == "other"


def test_only_token_ids_and_text_are_kept() -> None:
    repetition = Repetition()
    sent_over(repetition, ANSWER[:-1])
    assert "TopLogprob" not in repr(vars(repetition))
    repetition.begin_again()
    part = repetition._parts[0]
    assert (part._text, len(part._token_ids)) == (LETTERS, 5 + 2 * len(LETTERS))
    assert "TopLogprob" not in repr(vars(part))


def test_a_script_without_tokens_goes_on_too() -> None:
    chunks = [replace(chunk, token_ids=(), logprobs=(), token_bytes=()) for chunk in script(with_reasoning())]
    repetition = Repetition()
    sent = sent_over(repetition, chunks[:4])
    repetition.begin_again()
    sent += sent_over(repetition, regrouped(chunks, [1]))
    assert Chunk.joined(sent) == Chunk.joined(chunks)
