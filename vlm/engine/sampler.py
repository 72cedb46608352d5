"""Chooses tokens from logits, each row by its own settings. Vectorised: a row's choice never depends on another row.

The order is that of transformers: repetition penalty, n-gram ban, temperature, top-p; forced tokens win over all.
Log-probabilities are those of the raw logits. Sampling inverts the cumulative distribution at one uniform number that
the sequence drew itself, so a seed gives the same answer in any batch.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm.engine.sequence import Sequence
from vlm.models.base import Sampled

_NOT_FORCED = -1


class Sampler:
    """Per-row histories on the device, and one ``sample`` call a step."""

    def __init__(self, rows: int, max_positions: int, device: torch.device) -> None:
        """``max_positions``: longest sequence; its last token is chosen but never read, hence one place more."""
        self.device = device
        self._history = torch.zeros(rows, max_positions + 1, dtype=torch.long, device=device)

    def join(self, sequence: Sequence) -> None:
        """Note what a sequence that starts (again) has read and written."""
        ids = [*sequence.inputs.prompt_ids, *sequence.generated]
        self._history[sequence.row, : len(ids)] = torch.tensor(ids, device=self.device)

    def move(self, source: int, target: int) -> None:
        """Row ``source`` has become row ``target``."""
        self._history[target] = self._history[source]

    def sample(self, logits: Tensor, sequences: Rows[Sequence]) -> Sampled:
        """One token a row.

        Args:
            logits: float32 ``[batch, vocabulary]``; changed in place.
            sequences: The batch, in consecutive rows.
        """
        settings = _Settings.of(sequences)
        logprobs = torch.log_softmax(logits, dim=-1) if settings.logprobs else None
        self._penalise(logits, sequences, settings)
        tokens = self._choose(logits, sequences, settings)
        if settings.forced:
            forced = torch.tensor(settings.forced, device=self.device)
            tokens = torch.where(forced == _NOT_FORCED, tokens, forced)
        self._remember(tokens, sequences)
        chosen = None if logprobs is None else logprobs.gather(1, tokens[:, None])[:, 0]
        return Sampled(tokens, chosen)

    def _penalise(self, logits: Tensor, sequences: Rows[Sequence], settings: _Settings) -> None:
        if not settings.penalties and not settings.ngrams:
            return
        first, lengths = sequences[0].row, [sequence.length for sequence in sequences]
        assert first is not None
        history = self._history[first : first + len(sequences), : max(lengths)]
        known = torch.tensor(lengths, device=self.device)
        if settings.penalties:
            penalise_repeats(logits, history, known, torch.tensor(settings.penalties, device=self.device))
        for size in settings.ngrams:
            wants = torch.tensor([s.sampling.no_repeat_ngram_size == size for s in sequences], device=self.device)
            ban_repeated_ngrams(logits, history, torch.where(wants, known, 0), size)

    def _choose(self, logits: Tensor, sequences: Rows[Sequence], settings: _Settings) -> Tensor:
        greedy = logits.argmax(dim=-1)
        if not settings.temperatures:
            return greedy
        temperatures = torch.tensor(settings.temperatures, device=self.device)
        uniforms = [s.generator.random() if s.sampling.temperature else 0.0 for s in sequences]
        top_p = torch.tensor([s.sampling.top_p for s in sequences], device=self.device, dtype=torch.float32)
        below_best = logits - logits.amax(dim=-1, keepdim=True)  # divided by next to nothing, this is not infinite
        drawn = draw(
            below_best / torch.where(temperatures > 0, temperatures, 1.0)[:, None],
            top_p,
            torch.tensor(uniforms, device=self.device),
        )
        return torch.where(temperatures > 0, drawn, greedy)

    def _remember(self, tokens: Tensor, sequences: Rows[Sequence]) -> None:
        rows = torch.tensor([sequence.row for sequence in sequences], device=self.device)
        ends = torch.tensor([sequence.length for sequence in sequences], device=self.device)
        self._history[rows, ends] = tokens


@dataclass(frozen=True, slots=True)
class _Settings:
    """A batch's settings as lists by row; an empty one means that no row uses that feature, so its work is skipped."""

    logprobs: bool
    penalties: list[float]
    ngrams: list[int]
    temperatures: list[float]
    forced: list[int]

    @classmethod
    def of(cls, sequences: Rows[Sequence]) -> _Settings:
        samplings = [sequence.sampling for sequence in sequences]
        penalties = [sampling.repetition_penalty or 1.0 for sampling in samplings]
        temperatures = [sampling.temperature or 0.0 for sampling in samplings]
        forced = [token if (token := s.forced_token()) is not None else _NOT_FORCED for s in sequences]
        return cls(
            logprobs=any(sequence.wants_logprobs for sequence in sequences),
            penalties=penalties if any(penalty != 1.0 for penalty in penalties) else [],
            ngrams=sorted({sampling.no_repeat_ngram_size or 0 for sampling in samplings} - {0}),
            temperatures=temperatures if any(temperatures) else [],
            forced=forced if any(token != _NOT_FORCED for token in forced) else [],
        )


def penalise_repeats(logits: Tensor, history: Tensor, lengths: Tensor, penalties: Tensor) -> None:
    """Divide positive and multiply negative logits of tokens in each row's history, in place.

    Args:
        logits: float32 ``[batch, vocabulary]``.
        history: int64 ``[batch, longest]``, real up to ``lengths`` ``[batch]``.
        penalties: float32 ``[batch]``; 1 changes nothing (Keskar et al. 2019, arXiv:1909.05858).
    """
    seen = _marked(logits, history, torch.arange(history.shape[1], device=history.device) < lengths[:, None])
    factors = penalties[:, None]
    logits.copy_(torch.where(seen, torch.where(logits > 0, logits / factors, logits * factors), logits))


def ban_repeated_ngrams(logits: Tensor, history: Tensor, lengths: Tensor, size: int) -> None:
    """Set to -inf each token that would repeat an n-gram of ``size`` in its row's history, in place.

    Args:
        logits: float32 ``[batch, vocabulary]``.
        history: int64 ``[batch, longest]``, real up to ``lengths`` ``[batch]``; length 0 bans nothing in that row.
        size: At least 1.
    """
    if history.shape[1] < size:
        return
    windows = history.unfold(1, size, 1)  # [batch, starts, size]
    starts = torch.arange(windows.shape[1], device=history.device)
    ends = lengths[:, None] - size + 1 + torch.arange(size - 1, device=history.device)
    suffix = history.gather(1, ends.clamp(min=0))  # the last size - 1 tokens of each row
    repeats = (windows[:, :, :-1] == suffix[:, None]).all(dim=-1) & (starts + size <= lengths[:, None])
    logits.masked_fill_(_marked(logits, windows[:, :, -1], repeats), -torch.inf)


def _marked(logits: Tensor, tokens: Tensor, where: Tensor) -> Tensor:
    """True at ``tokens`` ``[batch, n]`` of each row, counting only those ``where`` it is True."""
    batch, vocabulary = logits.shape
    marks = torch.zeros(batch, vocabulary + 1, dtype=torch.bool, device=logits.device)
    marks.scatter_(1, torch.where(where, tokens, vocabulary), True)  # what does not count lands in a spare column
    return marks[:, :vocabulary]


def draw(logits: Tensor, top_p: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token a row from its nucleus.

    Args:
        logits: float32 ``[batch, vocabulary]``, temperature already applied.
        top_p: ``[batch]``: the smallest set of most likely tokens whose probability reaches it is drawn from
            (Holtzman et al. 2019, arXiv:1904.09751).
        uniforms: ``[batch]`` in [0, 1).
    """
    probabilities, order = torch.softmax(logits, dim=-1).sort(dim=-1, descending=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    nucleus = torch.where(before < top_p[:, None], probabilities, 0.0)
    nucleus[:, 0] = probabilities[:, 0]  # rounding must never leave a row empty
    cumulative = nucleus.cumsum(dim=-1)
    place = torch.searchsorted(cumulative, (uniforms[:, None] * cumulative[:, -1:]).contiguous(), right=True)
    last = (nucleus > 0).sum(dim=-1, keepdim=True) - 1
    # Logits that are no numbers leave no nucleus: any token will do, but an index out of range would break a GPU.
    return order.gather(1, torch.minimum(place, last).clamp(min=0))[:, 0]
