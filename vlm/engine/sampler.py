"""Chooses tokens from logits, each row by its own settings, vectorised; no row depends on another sequence's.

The order is that of transformers: repetition penalty, n-gram ban, temperature, top-p; forced tokens take precedence.
Log-probabilities are those of the raw logits. Sampling inverts the cumulative distribution at one uniform number from
the sequence's own generator, so a seed gives the same answer in any batch. The rows of a beam search are chosen
together: :func:`rank` ranks their continuations, and :mod:`vlm.engine.beams` keeps the state of the search.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import Any

import torch
from torch import Tensor

from vlm.engine.beams import Continuation
from vlm.engine.sequence import Beam
from vlm.models.base import Sampled

_NOT_FORCED = -1
TINY = torch.finfo(torch.float32).tiny
"""The smallest temperature above 0: one that float32 would round to 0 is greedy, as this one is."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best continuations of searches with the same number of beams, best first: tensors ``[searches, kept]``.

    Attributes:
        rows: Rows of the batch, int64 ``[searches, beams]``.
        parents, tokens, scores, ends: As in :class:`~vlm.engine.beams.Continuation`.
        logprobs: Raw log-probabilities, or None if no sequence of the batch wants them.
        next_parents, next_tokens: Those that continue the search, int64 ``[searches, beams]``.
    """

    rows: Tensor
    parents: Tensor
    tokens: Tensor
    scores: Tensor
    ends: Tensor
    logprobs: Tensor | None
    next_parents: Tensor
    next_tokens: Tensor

    @property
    def parts(self) -> tuple[Tensor | None, ...]:
        """What :meth:`continuations` needs on the host."""
        return self.rows[:, 0], self.parents, self.tokens, self.logprobs, self.scores, self.ends

    @staticmethod
    def continuations(first_rows: list[int], *parts: list[Any] | None) -> Iterator[tuple[int, list[Continuation]]]:
        """Each search's first row and continuations, from :attr:`parts` as lists."""
        for index, row in enumerate(first_rows):
            columns = (repeat(None) if part is None else part[index] for part in parts)
            yield row, [Continuation(*one) for one in zip(*columns, strict=False)]


@dataclass(frozen=True, slots=True)
class SamplerOutput:
    """The choice of one step.

    Attributes:
        sampled: One token a row.
        finite: bool ``[batch]``: whether the row's logits are finite; a model may overflow in a narrow dtype.
        ranked: For beam searches, the continuations to choose from.
    """

    sampled: Sampled
    finite: Tensor
    ranked: tuple[Ranked, ...] = ()


class Sampler:
    """Per-row histories on the device, and one ``sample`` call a step."""

    def __init__(
        self, rows: int, max_positions: int, device: torch.device, eos_token_ids: Collection[int] = frozenset()
    ) -> None:
        """Allocate the histories.

        Args:
            rows: Maximum number of beams in one step.
            max_positions: Longest sequence; its last token is chosen but never read, so a history holds one more.
            device: The model's.
            eos_token_ids: Ids that end an answer.
        """
        self.device = device
        self._history = torch.zeros(rows, max_positions + 1, dtype=torch.long, device=device)
        self._eos = torch.tensor(sorted(eos_token_ids), dtype=torch.long, device=device)

    def start(self, beam: Beam) -> None:
        """Record what a beam that starts has read, and after a preemption what it has generated."""
        ids = [*beam.inputs.prompt_ids, *beam.generated]
        self._history[beam.row, : len(ids)] = torch.tensor(ids, device=self.device)

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Rows ``targets`` continue what rows ``sources`` were, both int64 ``[n]``."""
        self._history[targets] = self._history[sources]

    def sample(self, logits: Tensor, beams: abc.Sequence[Beam]) -> SamplerOutput:
        """Choose one token a row.

        Args:
            logits: float32 ``[batch, vocabulary]``; changed in place.
            beams: The batch, in consecutive rows.
        """
        settings = _BatchSettings.of(beams)
        finite = logits.amax(dim=-1).isfinite()
        logprobs = torch.log_softmax(logits, dim=-1) if settings.logprobs else None
        searches = _searches(beams)
        groups = [torch.tensor(rows, device=self.device) for rows in searches]
        for rows in groups:
            logits[rows] = torch.log_softmax(logits[rows], dim=-1)
        self._penalise(logits, beams, settings)
        tokens = self._choose(logits, beams, settings)
        if settings.forced:
            forced = torch.tensor(settings.forced, device=self.device)
            tokens = torch.where(forced == _NOT_FORCED, tokens, forced)
            _force(logits, forced)
        chosen = None if logprobs is None else logprobs.gather(1, tokens[:, None])[:, 0]
        ranked = tuple(
            self._rank(logits, logprobs, [[beams[row] for row in group] for group in same], rows)
            for same, rows in zip(searches, groups, strict=True)
        )
        for one in ranked:
            tokens[one.rows] = one.next_tokens
        return SamplerOutput(Sampled(tokens, chosen), finite, ranked)

    def record(self, output: SamplerOutput, tokens: Tensor, beams: abc.Sequence[Beam]) -> None:
        """Record each row's new token: ``tokens`` int64 ``[batch]`` is what the model has made of ``output``."""
        first = beams[0].row
        for one in output.ranked:
            parents = one.rows.gather(1, one.next_parents)
            self._history[first + one.rows] = self._history[first + parents]
        rows = torch.arange(first, first + len(beams), device=self.device)
        ends = torch.tensor([beam.known for beam in beams], device=self.device)
        self._history[rows, ends] = tokens

    def _rank(
        self, logits: Tensor, logprobs: Tensor | None, searches: abc.Sequence[abc.Sequence[Beam]], rows: Tensor
    ) -> Ranked:
        scores = torch.tensor([_scores(group) for group in searches], device=self.device)
        last = torch.tensor([group[0].budget == 1 for group in searches], device=self.device)
        return rank(logits[rows] + scores[..., None], rows, last, self._eos, logprobs)

    def _penalise(self, logits: Tensor, beams: abc.Sequence[Beam], settings: _BatchSettings) -> None:
        if not settings.penalties and not settings.ngrams:
            return
        first, lengths = beams[0].row, [beam.known for beam in beams]
        history = self._history[first : first + len(beams), : max(lengths)]
        known = torch.tensor(lengths, device=self.device)
        if settings.penalties:
            rows = torch.tensor([*settings.penalties], device=self.device)
            penalised = logits[rows]
            penalties = torch.tensor([*settings.penalties.values()], device=self.device)
            penalise_repeats(penalised, history[rows], known[rows], penalties)
            logits[rows] = penalised
        for size, banning in settings.ngrams.items():
            rows = torch.tensor(banning, device=self.device)
            banned = logits[rows]
            ban_repeated_ngrams(banned, history[rows], known[rows], size)
            logits[rows] = banned

    def _choose(self, logits: Tensor, beams: abc.Sequence[Beam], settings: _BatchSettings) -> Tensor:
        tokens = logits.argmax(dim=-1)
        if not settings.sampled:
            return tokens
        samplings = [beams[row].sequence.sampling for row in settings.sampled]
        uniforms = [beams[row].sequence.generator.random() for row in settings.sampled]
        rows = torch.tensor(settings.sampled, device=self.device)
        temperatures, top_p, numbers = torch.tensor(
            [[how.temperature for how in samplings], [how.top_p for how in samplings], uniforms], device=self.device
        )
        sampled = logits[rows]
        below_best = sampled - sampled.amax(dim=-1, keepdim=True)  # stays finite when divided by a tiny temperature
        tokens[rows] = sample_nucleus(below_best / temperatures.clamp(min=TINY)[:, None], top_p, numbers)
        return tokens


def _searches(beams: abc.Sequence[Beam]) -> list[list[list[int]]]:
    """Rows of the beam searches, ``[searches, beams]`` for each number of beams."""
    first = beams[0].row
    groups = [
        [beam.row - first for beam in group]
        for sequence, group in groupby(beams, key=lambda beam: beam.sequence)
        if sequence.search is not None
    ]
    return [list(same) for _, same in groupby(sorted(groups, key=len), key=len)]


def _scores(group: abc.Sequence[Beam]) -> list[float]:
    search = group[0].sequence.search
    assert search is not None
    return search.scores


def _force(logits: Tensor, forced: Tensor) -> None:
    """Ban every token but the forced one in rows that have one; it leaves a beam's score as it is."""
    has = forced != _NOT_FORCED
    logits.masked_fill_(has[:, None], -torch.inf)
    logits.scatter_(1, forced.clamp(min=0)[:, None], torch.where(has, 0.0, logits[:, 0])[:, None])


def rank(scores: Tensor, rows: Tensor, last: Tensor, eos: Tensor, logprobs: Tensor | None) -> Ranked:
    """Rank the continuations of all beams of a search together, as transformers' beam search does.

    Args:
        scores: float32 ``[searches, beams, vocabulary]`` of each beam with each next token.
        rows: int64 ``[searches, beams]``: the beams' rows in ``logprobs``.
        last: bool ``[searches]``: whether the next token is the last that the search may have.
        eos: int64 ids that end an answer.
        logprobs: Raw log-probabilities float32 ``[batch, vocabulary]`` of the next token, or None.
    """
    _, beams, vocabulary = scores.shape
    best, index = scores.flatten(1).topk(max(2, 1 + len(eos)) * beams, dim=1)
    parents, tokens = index // vocabulary, index % vocabulary
    ends = torch.isin(tokens, eos) | last[:, None]
    survivors = ends.int().argsort(dim=1, stable=True)[:, :beams]
    chances = None if logprobs is None else logprobs[rows.gather(1, parents), tokens]
    return Ranked(rows, parents, tokens, best, ends, chances, parents.gather(1, survivors), tokens.gather(1, survivors))


@dataclass(frozen=True, slots=True)
class _BatchSettings:
    """Which rows of a batch use which feature, so that the others do not pay for it.

    Attributes:
        logprobs: Whether any sequence wants log-probabilities.
        penalties: Repetition penalty by row.
        ngrams: Rows by the size of the n-grams that they must not repeat.
        sampled: Rows whose temperature is above 0.
        forced: One token a row, or ``_NOT_FORCED``; empty if no row is forced.
    """

    logprobs: bool
    penalties: dict[int, float]
    ngrams: dict[int, list[int]]
    sampled: list[int]
    forced: list[int]

    @classmethod
    def of(cls, beams: abc.Sequence[Beam]) -> _BatchSettings:
        samplings = [beam.sequence.sampling for beam in beams]
        sizes = [how.no_repeat_ngram_size or 0 for how in samplings]
        forced = [token if (token := beam.forced_token()) is not None else _NOT_FORCED for beam in beams]
        return cls(
            logprobs=any(beam.sequence.wants_logprobs for beam in beams),
            penalties={
                row: how.repetition_penalty
                for row, how in enumerate(samplings)
                if how.repetition_penalty is not None and how.repetition_penalty != 1.0
            },
            ngrams={size: [row for row, own in enumerate(sizes) if own == size] for size in sorted({*sizes} - {0})},
            sampled=[row for row, how in enumerate(samplings) if how.temperature],
            forced=forced if any(token != _NOT_FORCED for token in forced) else [],
        )


def penalise_repeats(logits: Tensor, history: Tensor, lengths: Tensor, penalties: Tensor) -> None:
    """Divide positive and multiply negative logits of tokens in each row's history, in place.

    Args:
        logits: float32 ``[batch, vocabulary]``.
        history: int64 ``[batch, longest]``, valid up to ``lengths`` ``[batch]``.
        lengths: int64 ``[batch]``.
        penalties: float32 ``[batch]``; 1 is no penalty (Keskar et al. 2019, arXiv:1909.05858).
    """
    seen = _occurring(logits, history, torch.arange(history.shape[1], device=history.device) < lengths[:, None])
    factors = penalties[:, None]
    logits.copy_(torch.where(seen, torch.where(logits > 0, logits / factors, logits * factors), logits))


def ban_repeated_ngrams(logits: Tensor, history: Tensor, lengths: Tensor, size: int) -> None:
    """Set to -inf each token that would repeat an n-gram of ``size`` in its row's history, in place.

    Args:
        logits: float32 ``[batch, vocabulary]``.
        history: int64 ``[batch, longest]``, valid up to ``lengths``.
        lengths: int64 ``[batch]``; length 0 is no ban in that row.
        size: At least 1.
    """
    if history.shape[1] < size:
        return
    windows = history.unfold(1, size, 1)  # [batch, starts, size]
    starts = torch.arange(windows.shape[1], device=history.device)
    ends = lengths[:, None] - size + 1 + torch.arange(size - 1, device=history.device)
    suffix = history.gather(1, ends.clamp(min=0))  # the last size - 1 tokens of each row
    repeats = (windows[:, :, :-1] == suffix[:, None]).all(dim=-1) & (starts + size <= lengths[:, None])
    logits.masked_fill_(_occurring(logits, windows[:, :, -1], repeats), -torch.inf)


def _occurring(logits: Tensor, tokens: Tensor, where: Tensor) -> Tensor:
    """bool ``[batch, vocabulary]``: True at each row's ``tokens`` ``[batch, n]``, of which only those ``where`` count.

    Ids beyond the vocabulary, with which a model notes what it generates besides tokens, count nowhere.
    """
    batch, vocabulary = logits.shape
    found = torch.zeros(batch, vocabulary + 1, dtype=torch.bool, device=logits.device)
    counted = torch.where(where, tokens, vocabulary).clamp(max=vocabulary)
    found.scatter_(1, counted, True)  # the last column is for what does not count
    return found[:, :vocabulary]


def sample_nucleus(logits: Tensor, top_p: Tensor, uniforms: Tensor) -> Tensor:
    """Sample one token a row from its nucleus, int64 ``[batch]``.

    Args:
        logits: float32 ``[batch, vocabulary]``, temperature already applied.
        top_p: float32 ``[batch]``: the nucleus is the smallest set of most likely tokens whose probability reaches it
            (Holtzman et al. 2019, arXiv:1904.09751).
        uniforms: float32 ``[batch]`` in [0, 1): where each row's cumulative distribution is inverted.
    """
    probabilities, order = torch.softmax(logits, dim=-1).sort(dim=-1, descending=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    nucleus = torch.where(before < top_p[:, None], probabilities, 0.0)
    nucleus[:, 0] = probabilities[:, 0]  # rounding must never leave a row empty
    cumulative = nucleus.cumsum(dim=-1)
    index = torch.searchsorted(cumulative, (uniforms[:, None] * cumulative[:, -1:]).contiguous(), right=True)
    last = (nucleus > 0).sum(dim=-1, keepdim=True) - 1
    # Logits that are NaN leave no nucleus. Any token will do then, but an index out of range would break a GPU.
    return order.gather(1, torch.minimum(index, last).clamp(min=0))[:, 0]
