"""Beam search for one answer: which continuations go on, which are complete, and when to stop. Pure Python.

The rules are those of ``GenerationMixin._beam_search`` in transformers, so that the same model gives the same answer.
The device ranks the continuations (:func:`vlm.engine.sampler.rank`); this module keeps the state of the search.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from vlm.types import Sampling

IMPOSSIBLE = -1e9
"""The score of a beam that must not go on: at first all beams are equal, so only one of them may."""


Likeliest = tuple[tuple[int, float], ...]
"""The likeliest tokens of a step and their raw log-probabilities, best first; empty if they are not wanted."""


class BeamLike(Protocol):
    """What a beam has generated."""

    @property
    def generated(self) -> Sequence[int]: ...
    @property
    def logprobs(self) -> Sequence[float]: ...
    @property
    def likeliest(self) -> Sequence[Likeliest]: ...


@dataclass(frozen=True, slots=True)
class Continuation:
    """A beam and one more token.

    Attributes:
        parent: Index of the beam.
        token: The next token.
        logprob: The token's raw log-probability, or None if no sequence of the batch wants it.
        score: Sum of the log-probabilities of all the beam's tokens, after bans and penalties.
        ends: Whether the token completes the answer.
        likeliest: The likeliest tokens that the beam could have gone on with.
    """

    parent: int
    token: int
    logprob: float | None
    score: float
    ends: bool
    likeliest: Likeliest = ()


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A complete answer, and the score by which it is ranked."""

    generated: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float
    likeliest: tuple[Likeliest, ...] = ()


@dataclass(slots=True)
class BeamSearch:
    """The state of one beam search.

    Attributes:
        width: Number of beams.
        length_penalty, early_stopping: As in :class:`~vlm.types.Sampling`.
        scores: Score of each running beam, best first.
        complete: The best complete answers so far, at most ``width``, best first.
        ended: Whether no better answer can follow.
    """

    width: int
    length_penalty: float
    early_stopping: bool
    scores: list[float]
    complete: list[Hypothesis] = field(default_factory=list)
    ended: bool = False

    @classmethod
    def of(cls, sampling: Sampling) -> Self:
        """A search at its start; ``sampling`` is fully resolved."""
        assert sampling.num_beams is not None
        assert sampling.length_penalty is not None
        scores = [0.0] + [IMPOSSIBLE] * (sampling.num_beams - 1)
        return cls(sampling.num_beams, sampling.length_penalty, bool(sampling.early_stopping), scores)

    @property
    def best(self) -> Hypothesis:
        """The best answer; there is one once the search has ended."""
        return self.complete[0]

    def advance(self, beams: Sequence[BeamLike], ranked: Sequence[Continuation]) -> list[Continuation]:
        """Advance by one token; returns the continuations that become the next beams, best first.

        Args:
            beams: The running beams.
            ranked: The best continuations of all beams together, best first, so many that ``width`` of them do not end
                the answer if there are that many.
        """
        length = len(beams[0].generated) + 1
        # Only the first ``width`` may become answers: the others are there to go on in place of those that end.
        self._complete(beams, [one for one in ranked[: self.width] if one.ends], length)
        chosen = survivors(ranked, self.width)
        self.scores = [one.score + (IMPOSSIBLE if one.ends else 0.0) for one in chosen]
        self.ended = (
            all(one.ends for one in ranked)
            or (self._full and self.early_stopping)
            or not self.scores[0] / length**self.length_penalty > self._worst_complete
        )
        return chosen

    @property
    def _full(self) -> bool:
        return len(self.complete) == self.width

    @property
    def _worst_complete(self) -> float:
        return self.complete[-1].score if self._full else IMPOSSIBLE

    def _complete(self, beams: Sequence[BeamLike], ending: Iterable[Continuation], length: int) -> None:
        new = [_completed(beams[one.parent], one, one.score / length**self.length_penalty) for one in ending]
        ranked = sorted([*self.complete, *new], key=lambda one: one.score, reverse=True)
        self.complete = ranked[: self.width]


def survivors(ranked: Sequence[Continuation], width: int) -> list[Continuation]:
    """The best ``width`` that do not end the answer; :func:`vlm.engine.sampler.rank` chooses by the same rule."""
    return sorted(ranked, key=lambda one: one.ends)[:width]


def _completed(beam: BeamLike, last: Continuation, score: float) -> Hypothesis:
    logprobs = () if last.logprob is None else (*beam.logprobs, last.logprob)
    return Hypothesis((*beam.generated, last.token), logprobs, score, (*beam.likeliest, last.likeliest))
