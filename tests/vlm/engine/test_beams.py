"""The books of a beam search; that its answers are transformers' own is shown in tests/vlm/test_fidelity.py."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm.engine.beams import BeamSearch, Continuation, Likeliest, survivors
from vlm.types import Sampling

END = 9


@dataclass
class Beam:
    generated: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    likeliest: list[Likeliest] = field(default_factory=list)


def search(beams: int = 2, length_penalty: float = 1.0, early_stopping: bool = True) -> BeamSearch:
    return BeamSearch.of(Sampling(num_beams=beams, length_penalty=length_penalty, early_stopping=early_stopping))


def continuation(parent: int, token: int, score: float, *, last: bool = False) -> Continuation:
    return Continuation(parent, token, -0.5, score, ends=last or token == END)


def advance(search: BeamSearch, beams: list[Beam], *ranked: Continuation) -> list[Beam]:
    chosen = search.advance(beams, ranked)
    return [Beam([*beams[one.parent].generated, one.token], [*beams[one.parent].logprobs, -0.5]) for one in chosen]


def test_the_best_that_do_not_end_go_on() -> None:
    one = search()
    beams = advance(one, [Beam(), Beam()], *(continuation(0, token, -float(token)) for token in (1, END, 2, 3)))
    assert [beam.generated for beam in beams] == [[1], [2]]
    assert one.scores == [-1.0, -2.0]
    assert [done.generated for done in one.complete] == [(END,)]
    assert not one.ended


def test_a_continuation_that_ends_below_the_first_beams_is_not_an_answer() -> None:
    one = search()
    advance(one, [Beam(), Beam()], *(continuation(0, token, -float(token)) for token in (1, 2, END, 4)))
    assert not one.complete


def test_early_stopping_ends_with_as_many_answers_as_beams() -> None:
    early, late = search(), search(early_stopping=False)
    for one in (early, late):
        beams = advance(one, [Beam(), Beam()], *(continuation(0, token, -0.1 * token) for token in (END, 1, 2, 3)))
        advance(one, beams, continuation(0, END, -1.0), continuation(0, 1, -1.1), continuation(1, 2, -1.2),
                continuation(1, 3, -1.3))  # fmt: skip
    assert early.ended
    assert early.best.generated == (1, END)
    assert early.best.score == pytest.approx(-0.5)
    assert not late.ended, "-1.1 / 2 may still beat -0.9"


@pytest.mark.parametrize(("penalty", "best"), [(0.0, (END,)), (2.0, (1, 2, END))])
def test_the_length_penalty_decides_between_short_and_long(penalty: float, best: tuple[int, ...]) -> None:
    one = search(length_penalty=penalty, early_stopping=False)
    beams = advance(
        one, [Beam(), Beam()], *(continuation(0, t, s) for t, s in ((1, -0.2), (END, -0.5), (2, -3), (3, -4)))
    )
    beams = advance(one, beams, *(continuation(0, t, s) for t, s in ((2, -0.4), (3, -3.0), (4, -4), (5, -5))))
    advance(one, beams, *(continuation(0, t, s, last=True) for t, s in ((END, -0.8), (3, -3.1), (4, -5), (5, -6))))
    assert one.ended, "nothing can go on"
    assert one.best.generated == best


def test_a_search_ends_when_nothing_better_can_come() -> None:
    one = search(length_penalty=0.0, early_stopping=False)
    ranked = [
        continuation(0, END, -0.1),
        continuation(1, END, -0.2),
        continuation(0, 1, -2.0),
        continuation(0, 2, -3.0),
    ]
    advance(one, [Beam(), Beam()], *ranked)
    assert one.ended


ranks = st.lists(st.tuples(st.integers(0, 2), st.integers(0, END), st.floats(-50, 0)), min_size=6, max_size=6)


@given(ranks, st.integers(1, 3))
def test_survivors_are_the_best_that_do_not_end(ranked: list[tuple[int, int, float]], width: int) -> None:
    ordered = [continuation(*one) for one in sorted(ranked, key=lambda one: -one[2])]
    found = survivors(ordered, width)
    open_ended = [one for one in ordered if not one.ends]
    assert found[: len(open_ended)] == open_ended[:width]
    assert len(found) == width
