"""Chooses tokens from logits, each row by its own settings, vectorised; no row depends on another sequence's.

The order is that of transformers and vLLM, which agree except where it says so below::

    logit biases                            first, so that the penalties see what the client wants to be likely
    repetition penalty                      depends on the sign of a logit, so it comes before what shifts logits
    frequency and presence penalties        only vLLM has these; it puts them here
    ban of repeated n-grams                 sets -inf, which no other step changes
    temperature, top-k, top-p, min-p        only where tokens are sampled; vLLM puts min-p before top-k
    forced tokens                           take precedence over all of this

Beam search uses the same order on log-probabilities, up to the ban. Log-probabilities are those of the raw logits.
Sampling inverts the cumulative distribution at one uniform number from the sequence's own generator, so a seed gives
the same answer in any batch. The rows of a beam search are chosen together: :func:`rank` ranks their continuations,
and :mod:`vlm.engine.beams` keeps the state of the search.
"""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlm.engine.beams import BeamSearch, Continuation, Likeliest
from vlm.engine.logits import (
    Where,
    add_biases,
    ban,
    keep_likeliest,
    penalise_counts,
    penalise_repeats,
    sample_nucleus,
)
from vlm.engine.repeats import repeating
from vlm.engine.sequence import Beam, Sequence
from vlm.layers.upload import Numbers, upload
from vlm.models.base import Sampled
from vlm.types import Sampling

Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

_NOT_FORCED = -1
TINY = torch.finfo(torch.float32).tiny
"""The smallest temperature above 0: one that float32 would round to 0 is greedy, as this one is."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best continuations of searches with the same number of beams, best first: tensors ``[searches, kept]``.

    Attributes:
        first_rows: The row of each search's first beam.
        parents, tokens, scores, ends: As in :class:`~vlm.engine.beams.Continuation`.
        logprobs: Raw log-probabilities, or None if no sequence of the batch wants them.
        next_parents, next_tokens: Those that continue the search, int64 ``[searches, beams]``.
    """

    first_rows: tuple[int, ...]
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
        return self.parents, self.tokens, self.logprobs, self.scores, self.ends

    def continuations(self, *parts: list[Any] | None) -> Iterator[tuple[int, list[Continuation]]]:
        """Each search's first row and continuations, from :attr:`parts` as lists."""
        for index, row in enumerate(self.first_rows):
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
        largest: float32 ``[batch]``: each row's largest logit. It is NaN or infinite if one of them is NaN or plus
            infinity, or all are minus infinity: a model may overflow in a narrow dtype.
        ranked: For beam searches, the continuations to choose from.
        top: The likeliest tokens, or None if no row wants them.
    """

    sampled: Sampled
    largest: Tensor
    ranked: tuple[Ranked, ...] = ()
    top: TopTokens | None = None


class Sampler:
    """One ``sample`` call a step. It keeps nothing of a row, because the host knows what each has read and written."""

    def __init__(self, device: torch.device, eos_token_ids: Collection[int] = frozenset()) -> None:
        """``device`` is the model's, and ``eos_token_ids`` end an answer."""
        self.device = device
        self._eos = torch.tensor(sorted(eos_token_ids), dtype=torch.long, device=device)

    def sample(self, logits: Tensor, beams: abc.Sequence[Beam]) -> SamplerOutput:
        """Choose one token a row.

        Args:
            logits: float32 ``[batch, vocabulary]``; may be changed in place.
            beams: One a row.
        """
        settings = _BatchSettings.of(beams)
        if settings.plain:
            largest, tokens = logits.max(dim=-1)
            return SamplerOutput(Sampled(tokens, None), largest)
        return self._sample(logits, beams, settings)

    def _sample(self, logits: Tensor, beams: abc.Sequence[Beam], settings: _BatchSettings) -> SamplerOutput:
        largest = logits.amax(dim=-1)
        logprobs = torch.log_softmax(logits, dim=-1) if settings.logprobs else None
        top = TopTokens.of(logprobs, settings.top) if settings.top and logprobs is not None else None
        logits = self._searched(logits, settings.searched)
        self._penalise(logits, beams, settings)
        tokens = self._choose(logits, beams, settings)
        if settings.forced:
            forced = upload(settings.forced, self.device)
            tokens = torch.where(forced == _NOT_FORCED, tokens, forced)
            _force(logits, forced)
        chosen = None if logprobs is None else logprobs.gather(1, tokens[:, None])[:, 0]
        ranked = tuple(self._ranked(logits, logprobs, tokens, same) for same in _searches(beams, settings.searched))
        return SamplerOutput(Sampled(tokens, chosen), largest, ranked, top)

    def _searched(self, logits: Tensor, searched: list[int]) -> Tensor:
        """The logits, with log-probabilities in the rows of beam searches."""
        if len(searched) == len(logits):
            return torch.log_softmax(logits, dim=-1)
        if searched:
            rows = _index(searched, self.device)
            logits[rows] = torch.log_softmax(logits[rows], dim=-1)
        return logits

    def _ranked(self, logits: Tensor, logprobs: Tensor | None, tokens: Tensor, same: dict[int, Sequence]) -> Ranked:
        """The continuations of searches with the same number of beams, by first row; sets their rows of ``tokens``."""
        searches = [_search(sequence) for sequence in same.values()]
        width = searches[0].width
        rows = _index([*chain(*(range(first, first + width) for first in same))], self.device)
        scores = upload([search.scores for search in searches], self.device)
        last = upload([sequence.beams[0].budget == 1 for sequence in same.values()], self.device)
        own = None if logprobs is None else logprobs[rows].view(*scores.shape, -1)
        ranked = rank(logits[rows].view(*scores.shape, -1) + scores[..., None], last, self._eos, own, tuple(same))
        tokens[rows] = ranked.next_tokens.flatten()
        return ranked

    def _penalise(self, logits: Tensor, beams: abc.Sequence[Beam], settings: _BatchSettings) -> None:
        rows, vocabulary = logits.shape
        if settings.biases:
            at, tokens, biases = zip(*settings.biases, strict=True)
            add_biases(logits, self._where((at, tokens)), upload(biases, self.device, torch.float32))
        if (known := _entries({row: beams[row].ids for row in settings.penalties}, vocabulary)).size:
            where = self._where(known)
            penalise_repeats(logits, where, self._by_row(settings.penalties, 1.0, rows)[where[0]])
        if (written := _entries({row: beams[row].generated for row in settings.counts}, vocabulary)).size:
            found, times = _counted(written, vocabulary)
            where = self._where(found)
            each = self._by_row(settings.counts, (0.0, 0.0), rows)[where[0]]
            penalise_counts(logits, where, upload(times, self.device), *each.unbind(1))
        repeated = {row: repeating(beams[row].ids, size) for row, size in settings.ngrams.items()}
        if (banned := _entries(repeated, vocabulary)).size:
            ban(logits, self._where(banned))

    def _where(self, rows_and_tokens: Numbers) -> Where:
        rows, tokens = upload(rows_and_tokens, self.device).unbind()
        return rows, tokens

    def _by_row(self, settings: dict[int, Any], none: Any, rows: int) -> Tensor:
        """The setting of each row of the batch; ``none`` where it has none."""
        return upload([settings.get(row, none) for row in range(rows)], self.device, torch.float32)

    def _choose(self, logits: Tensor, beams: abc.Sequence[Beam], settings: _BatchSettings) -> Tensor:
        if len(settings.searched) == len(beams):
            return logits.new_zeros(len(beams), dtype=torch.long)  # a search chooses for all its rows together
        tokens = logits.max(dim=-1).indices
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


def _index(rows: list[int], device: torch.device) -> slice | Tensor:
    """What selects ``rows``: a slice if they are consecutive, so that nothing is copied."""
    first, end = rows[0], rows[0] + len(rows)
    return slice(first, end) if rows == [*range(first, end)] else upload(rows, device)


def _searches(beams: abc.Sequence[Beam], searched: list[int]) -> list[dict[int, Sequence]]:
    """The sequences that search, by their first rows: a group for each number of beams."""
    first = {beams[row].sequence: row for row in reversed(searched)}
    inorder = sorted(((row, one) for one, row in first.items()), key=lambda entry: (entry[1].num_beams, entry[0]))
    return [dict(same) for _, same in groupby(inorder, key=lambda entry: entry[1].num_beams)]


def _search(sequence: Sequence) -> BeamSearch:
    assert sequence.search is not None
    return sequence.search


def _entries(tokens: dict[int, list[int]], vocabulary: int) -> Integers:
    """Row and token, int64 ``[2, n]``, of each of the rows' ``tokens`` that is in the vocabulary.

    There may be thousands in a step, so Python does not handle them one by one.
    """
    counts = [*map(len, tokens.values())]
    joined = np.fromiter(chain.from_iterable(tokens.values()), np.int64, sum(counts))
    rows = np.repeat(np.fromiter(tokens, np.int64, len(tokens)), counts)
    return np.stack([rows, joined])[:, joined < vocabulary]


def _counted(entries: Integers, vocabulary: int) -> tuple[Integers, Floats]:
    """The distinct ones among ``entries``, and how often each is there, float32 ``[n]``."""
    distinct, times = np.unique(entries[0] * vocabulary + entries[1], return_counts=True)
    return np.stack(np.divmod(distinct, vocabulary)), times.astype(np.float32)


def _force(logits: Tensor, forced: Tensor) -> None:
    """Ban every token but the forced one in rows that have one; it leaves a beam's score as it is."""
    has = forced != _NOT_FORCED
    logits.masked_fill_(has[:, None], -torch.inf)
    logits.scatter_(1, forced.clamp(min=0)[:, None], torch.where(has, 0.0, logits[:, 0])[:, None])


def rank(
    scores: Tensor, last: Tensor, eos: Tensor, logprobs: Tensor | None, first_rows: tuple[int, ...] = ()
) -> Ranked:
    """Rank the continuations of all beams of a search together, as transformers' beam search does.

    Args:
        scores: float32 ``[searches, beams, vocabulary]`` of each beam with each next token.
        last: bool ``[searches]``: whether the next token is the last that the search may have.
        eos: int64 ids that end an answer.
        logprobs: Raw log-probabilities of the shape of ``scores``, or None.
        first_rows: The row of each search's first beam.
    """
    _, beams, vocabulary = scores.shape
    best, index = scores.flatten(1).topk(max(2, 1 + len(eos)) * beams, dim=1)
    parents, tokens = index // vocabulary, index % vocabulary
    ends = torch.isin(tokens, eos) | last[:, None]
    survivors = ends.int().argsort(dim=1, stable=True)[:, :beams]
    chances = None if logprobs is None else logprobs.flatten(1).gather(1, index)
    following = parents.gather(1, survivors), tokens.gather(1, survivors)
    return Ranked(first_rows, parents, tokens, best, ends, chances, *following)


@dataclass(slots=True)
class _BatchSettings:
    """Which rows of a batch use which feature, so that the others do not pay for it.

    Attributes:
        plain: Whether each row takes its likeliest token and wants nothing else.
        logprobs: Whether any sequence wants log-probabilities.
        top: How many of the likeliest tokens a row wants, for rows that want any.
        biases: Row, token id and bias of each entry of a ``logit_bias``.
        penalties: Repetition penalty by row, for rows where it is not 1.
        counts: Frequency and presence penalty by row, for rows where one of them is not 0.
        ngrams: The size of the n-grams that a row must not repeat, by row.
        sampled: Rows whose temperature is above 0.
        searched: Rows of beam searches.
        forced: One token a row, or ``_NOT_FORCED``; empty if no row is forced.
    """

    plain: bool = True
    logprobs: bool = False
    top: dict[int, int] = field(default_factory=dict)
    biases: list[tuple[int, int, float]] = field(default_factory=list)
    penalties: dict[int, float] = field(default_factory=dict)
    counts: dict[int, tuple[float, float]] = field(default_factory=dict)
    ngrams: dict[int, int] = field(default_factory=dict)
    sampled: list[int] = field(default_factory=list)
    searched: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, beams: abc.Sequence[Beam]) -> _BatchSettings:
        settings = cls()
        for row, beam in enumerate(beams):
            if not beam.sequence.takes_likeliest or beam.sequence.wants_logprobs:
                settings._add(row, beam, len(beams))
        return settings

    def _add(self, row: int, beam: Beam, rows: int) -> None:
        sequence = beam.sequence
        how = sequence.sampling
        self.plain = False
        self.logprobs = self.logprobs or sequence.wants_logprobs
        if how.top_logprobs:
            self.top[row] = how.top_logprobs
        self.biases += [(row, token, bias) for token, bias in how.logit_bias]
        if how.repetition_penalty is not None and how.repetition_penalty != 1.0:
            self.penalties[row] = how.repetition_penalty
        if how.frequency_penalty or how.presence_penalty:
            self.counts[row] = how.frequency_penalty, how.presence_penalty
        if how.no_repeat_ngram_size:
            self.ngrams[row] = how.no_repeat_ngram_size
        if how.temperature:
            self.sampled.append(row)
        if sequence.search is not None:
            self.searched.append(row)
        if (token := beam.forced_token()) is not None:
            self.forced = self.forced or [_NOT_FORCED] * rows
            self.forced[row] = token
