"""Chooses tokens from logits, each row by its own settings, vectorised; no row depends on another sequence's.

The order is that of transformers and vLLM, which agree except where it says so below::

    logit biases                            first, so that the penalties see what the client wants to be likely
    repetition penalty                      depends on the sign of a logit, so it comes before what shifts logits
    frequency and presence penalties        only vLLM has these; it puts them here
    ban of repeated n-grams                 sets -inf, which no other step changes
    temperature, top-k, top-p, min-p        only where tokens are sampled; vLLM puts min-p before top-k
    forced tokens                           take precedence over all of this

Beam search uses the same order on log-probabilities, up to the ban. Log-probabilities are those of the raw logits.
Sampling inverts the cumulative distribution at one uniform number from
the sequence's own generator, so a seed gives the same answer in any batch. The rows of a beam search are chosen
together: :func:`rank` ranks their continuations, and :mod:`vlm.engine.beams` keeps the state of the search.
"""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import Any

import torch
from torch import Tensor

from vlm.engine.beams import Continuation, Likeliest
from vlm.engine.logits import (
    add_biases,
    ban_repeated_ngrams,
    keep_likeliest,
    penalise_counts,
    penalise_repeats,
    sample_nucleus,
)
from vlm.engine.sequence import Beam
from vlm.layers.upload import upload
from vlm.models.base import Sampled
from vlm.types import Sampling

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
class TopTokens:
    """The likeliest tokens of the rows that want them, before any penalty: tensors ``[rows, kept]``, best first.

    Attributes:
        counts: How many of them each row wants, by its number in the batch.
        tokens, logprobs: int64 ids and float32 log-probabilities, as many as the row that wants most.
    """

    counts: dict[int, int]
    tokens: Tensor
    logprobs: Tensor

    @classmethod
    def of(cls, logprobs: Tensor, counts: dict[int, int]) -> TopTokens:
        """From ``logprobs`` float32 ``[batch, vocabulary]``; ``counts`` is not empty."""
        rows = upload([*counts], logprobs.device)
        best = logprobs[rows].topk(min(max(counts.values()), logprobs.shape[1]), dim=-1)
        return cls(counts, best.indices, best.values)

    def by_row(self, tokens: list[list[int]], logprobs: list[list[float]], taken: list[bool]) -> dict[int, Likeliest]:
        """The tensors as lists, by row, for rows of the batch that have ``taken`` the token which was chosen here.

        A token that the model rules out is not among them.
        """
        return {
            row: tuple(pair for pair in zip(ids[:count], values, strict=False) if pair[1] > -math.inf)
            for (row, count), ids, values in zip(self.counts.items(), tokens, logprobs, strict=True)
            if taken[row]
        }


@dataclass(frozen=True, slots=True)
class SamplerOutput:
    """The choice of one step.

    Attributes:
        sampled: One token a row.
        finite: bool ``[batch]``: whether the row's logits are finite; a model may overflow in a narrow dtype.
        ranked: For beam searches, the continuations to choose from.
        top: The likeliest tokens, or None if no row wants them.
    """

    sampled: Sampled
    finite: Tensor
    ranked: tuple[Ranked, ...] = ()
    top: TopTokens | None = None


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
        self._history[beam.row, : len(ids)] = upload(ids, self.device)

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
        top = TopTokens.of(logprobs, settings.top) if settings.top and logprobs is not None else None
        searches = _searches(beams)
        groups = [upload(rows, self.device) for rows in searches]
        for rows in groups:
            logits[rows] = torch.log_softmax(logits[rows], dim=-1)
        self._penalise(logits, beams, settings)
        tokens = self._choose(logits, beams, settings)
        if settings.forced:
            forced = upload(settings.forced, self.device)
            tokens = torch.where(forced == _NOT_FORCED, tokens, forced)
            _force(logits, forced)
        chosen = None if logprobs is None else logprobs.gather(1, tokens[:, None])[:, 0]
        ranked = tuple(
            self._rank(logits, logprobs, [[beams[row] for row in group] for group in same], rows)
            for same, rows in zip(searches, groups, strict=True)
        )
        for one in ranked:
            tokens[one.rows] = one.next_tokens
        return SamplerOutput(Sampled(tokens, chosen), finite, ranked, top)

    def record(self, output: SamplerOutput, tokens: Tensor, beams: abc.Sequence[Beam]) -> None:
        """Record each row's new token: ``tokens`` int64 ``[batch]`` is what the model has made of ``output``."""
        first = beams[0].row
        for one in output.ranked:
            parents = one.rows.gather(1, one.next_parents)
            self._history[first + one.rows] = self._history[first + parents]
        rows = torch.arange(first, first + len(beams), device=self.device)
        ends = upload([beam.known for beam in beams], self.device)
        self._history[rows, ends] = tokens

    def _rank(
        self, logits: Tensor, logprobs: Tensor | None, searches: abc.Sequence[abc.Sequence[Beam]], rows: Tensor
    ) -> Ranked:
        scores = upload([_scores(group) for group in searches], self.device)
        last = upload([group[0].budget == 1 for group in searches], self.device)
        return rank(logits[rows] + scores[..., None], rows, last, self._eos, logprobs)

    def _penalise(self, logits: Tensor, beams: abc.Sequence[Beam], settings: _BatchSettings) -> None:
        if settings.biases:
            self._add_biases(logits, settings.biases)
        if not settings.reads_history:
            return
        first, lengths = beams[0].row, [beam.known for beam in beams]
        history = self._history[first : first + len(beams), : max(lengths)]
        known = upload(lengths, self.device)
        if settings.penalties:
            rows = upload([*settings.penalties], self.device)
            penalised = logits[rows]
            penalties = upload([*settings.penalties.values()], self.device)
            penalise_repeats(penalised, history[rows], known[rows], penalties)
            logits[rows] = penalised
        if settings.counts:
            self._penalise_counts(logits, history, beams, settings.counts)
        for size, banning in settings.ngrams.items():
            rows = upload(banning, self.device)
            banned = logits[rows]
            ban_repeated_ngrams(banned, history[rows], known[rows], size)
            logits[rows] = banned

    def _add_biases(self, logits: Tensor, biases: list[tuple[int, int, float]]) -> None:
        rows, tokens, values = zip(*biases, strict=True)
        indices = upload([rows, tokens], self.device)
        add_biases(logits, indices[0], indices[1], upload(values, self.device))

    def _penalise_counts(
        self,
        logits: Tensor,
        history: Tensor,
        beams: abc.Sequence[Beam],
        penalties: dict[int, tuple[float, float]],
    ) -> None:
        ranges = [(row, len(beams[row].inputs.prompt_ids), beams[row].known) for row in penalties]
        rows, starts, ends = upload(ranges, self.device).unbind(1)
        positions = torch.arange(history.shape[1], device=self.device)
        written = (positions >= starts[:, None]) & (positions < ends[:, None])
        frequency, presence = upload([*penalties.values()], self.device).unbind(1)
        penalised = logits[rows]
        penalise_counts(penalised, history[rows], written, frequency, presence)
        logits[rows] = penalised

    def _choose(self, logits: Tensor, beams: abc.Sequence[Beam], settings: _BatchSettings) -> Tensor:
        tokens = logits.argmax(dim=-1)
        if not settings.sampled:
            return tokens
        samplings = [beams[row].sequence.sampling for row in settings.sampled]
        uniforms = [beams[row].sequence.generator.random() for row in settings.sampled]
        rows = upload(settings.sampled, self.device)
        temperatures, top_p, numbers = upload(
            [[how.temperature for how in samplings], [how.top_p for how in samplings], uniforms], self.device
        )
        sampled = logits[rows]
        below_best = sampled - sampled.amax(dim=-1, keepdim=True)  # stays finite when divided by a tiny temperature
        scaled = below_best / temperatures.clamp(min=TINY)[:, None]
        self._keep_likeliest(scaled, [how.top_k for how in samplings])
        tokens[rows] = sample_nucleus(scaled, top_p, numbers, self._min_p(samplings))
        return tokens

    def _keep_likeliest(self, logits: Tensor, top_k: abc.Sequence[int]) -> None:
        limited = [(row, min(k, logits.shape[1])) for row, k in enumerate(top_k) if k > 0]
        if not limited:
            return
        rows, counts = upload(limited, self.device).unbind(1)
        kept = logits[rows]
        keep_likeliest(kept, counts, max(k for _, k in limited))
        logits[rows] = kept

    def _min_p(self, samplings: abc.Sequence[Sampling]) -> Tensor | None:
        """The rows' ``min_p``, or None if it is 0 in all of them."""
        shares = [how.min_p for how in samplings]
        return upload(shares, self.device) if any(shares) else None


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
        top: How many of the likeliest tokens a row wants, for rows that want any.
        biases: Row, token id and bias of each entry of a ``logit_bias``.
        penalties: Repetition penalty by row.
        counts: Frequency and presence penalty by row, for rows where one of them is not 0.
        ngrams: Rows by the size of the n-grams that they must not repeat.
        sampled: Rows whose temperature is above 0.
        forced: One token a row, or ``_NOT_FORCED``; empty if no row is forced.
    """

    logprobs: bool
    top: dict[int, int]
    biases: list[tuple[int, int, float]]
    penalties: dict[int, float]
    counts: dict[int, tuple[float, float]]
    ngrams: dict[int, list[int]]
    sampled: list[int]
    forced: list[int]

    @property
    def reads_history(self) -> bool:
        """Whether a row's choice depends on what it has read or written."""
        return bool(self.penalties or self.counts or self.ngrams)

    @classmethod
    def of(cls, beams: abc.Sequence[Beam]) -> _BatchSettings:
        samplings = [beam.sequence.sampling for beam in beams]
        sizes = [how.no_repeat_ngram_size or 0 for how in samplings]
        forced = [token if (token := beam.forced_token()) is not None else _NOT_FORCED for beam in beams]
        return cls(
            logprobs=any(beam.sequence.wants_logprobs for beam in beams),
            top={row: how.top_logprobs for row, how in enumerate(samplings) if how.top_logprobs},
            biases=[(row, token, bias) for row, how in enumerate(samplings) for token, bias in how.logit_bias],
            penalties={
                row: how.repetition_penalty
                for row, how in enumerate(samplings)
                if how.repetition_penalty is not None and how.repetition_penalty != 1.0
            },
            counts={
                row: (how.frequency_penalty, how.presence_penalty)
                for row, how in enumerate(samplings)
                if how.frequency_penalty or how.presence_penalty
            },
            ngrams={size: [row for row, own in enumerate(sizes) if own == size] for size in sorted({*sizes} - {0})},
            sampled=[row for row, how in enumerate(samplings) if how.temperature],
            forced=forced if any(token != _NOT_FORCED for token in forced) else [],
        )
