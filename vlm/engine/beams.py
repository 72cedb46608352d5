"""Beam search over one answer: which continuations live on, which are complete, and when to stop. Pure Python.

The rules are those of transformers' ``generate`` (``GenerationMixin._beam_search``), so that the same model gives the
same answer. The device ranks continuations (:mod:`vlm.engine.sampler`); this module only keeps the books.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from vlm.types import Sampling

IMPOSSIBLE = -1e9
"""The score of a beam that is none: at first all are alike, and only one of them may go on."""


class BeamLike(Protocol):
    """What a beam has written."""

    @property
    def generated(self) -> Sequence[int]: ...
    @property
    def logprobs(self) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class Continuation:
    """A beam and one more token.

    Attributes:
        parent: Index of the beam.
        token: What comes next.
        logprob: The token's raw log-probability, or None where nobody asked.
        score: Log-probability of the whole, after bans and penalties.
        ends: The answer is complete with it.
    """

    parent: int
    token: int
    logprob: float | None
    score: float
    ends: bool


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A complete answer and the score that it is ranked by."""

    generated: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float


@dataclass(slots=True)
class BeamSearch:
    """Where the search of one answer stands.

    Attributes:
        width: Beams.
        scores: Log-probability of each running beam, best first.
        complete: The best complete answers so far, best first, at most ``width``.
        ended: Nothing better can come.
    """

    width: int
    length_penalty: float
    early_stopping: bool
    scores: list[float]
    complete: list[Hypothesis] = field(default_factory=list)
    ended: bool = False

    @classmethod
    def of(cls, sampling: Sampling) -> Self:
        """A search that starts; ``sampling`` is fully resolved."""
        assert sampling.num_beams is not None
        assert sampling.length_penalty is not None
        scores = [0.0] + [IMPOSSIBLE] * (sampling.num_beams - 1)
        return cls(sampling.num_beams, sampling.length_penalty, bool(sampling.early_stopping), scores)

    @property
    def best(self) -> Hypothesis:
        """The answer, once the search has ended."""
        return self.complete[0]

    def advance(self, beams: Sequence[BeamLike], ranked: Sequence[Continuation]) -> list[Continuation]:
        """Go one token on; returns what the next beams are, best first.

        Args:
            beams: The running ones.
            ranked: The likeliest continuations of all beams together, best first, enough that ``width`` do not end.
        """
        length = len(beams[0].generated) + 1
        # Only what ranks among the first ``width`` may be an answer: the others are there to go on in their place.
        self._note(beams, [one for one in ranked[: self.width] if one.ends], length)
        chosen = survivors(ranked, self.width)
        self.scores = [one.score + (IMPOSSIBLE if one.ends else 0.0) for one in chosen]
        self.ended = (
            all(one.ends for one in ranked)
            or (self._full and self.early_stopping)
            or not self.scores[0] / length**self.length_penalty > self._to_beat
        )
        return chosen

    @property
    def _full(self) -> bool:
        return len(self.complete) == self.width

    @property
    def _to_beat(self) -> float:
        return self.complete[-1].score if self._full else IMPOSSIBLE

    def _note(self, beams: Sequence[BeamLike], ending: Iterable[Continuation], length: int) -> None:
        new = [_completed(beams[one.parent], one, one.score / length**self.length_penalty) for one in ending]
        ranked = sorted([*self.complete, *new], key=lambda one: one.score, reverse=True)
        self.complete = ranked[: self.width]


def survivors(ranked: Sequence[Continuation], width: int) -> list[Continuation]:
    """The ``width`` best that do not end the answer; the device chooses by the same rule."""
    return sorted(ranked, key=lambda one: one.ends)[:width]


def _completed(beam: BeamLike, last: Continuation, score: float) -> Hypothesis:
    logprobs = () if last.logprob is None else (*beam.logprobs, last.logprob)
    return Hypothesis((*beam.generated, last.token), logprobs, score)
