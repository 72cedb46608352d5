"""Operations on the logits of a batch: biases, penalties and bans in place, and sampling. Each row is by itself.

Which row uses which of them, and in which order, is decided in :mod:`vlm.engine.sampler`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def add_biases(logits: Tensor, rows: Tensor, tokens: Tensor, biases: Tensor) -> None:
    """Add each of ``biases`` float32 ``[n]`` to the logit of its row and token, int64 ``[n]`` each, in place."""
    logits.index_put_((rows, tokens), biases, accumulate=True)


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


def penalise_counts(logits: Tensor, history: Tensor, written: Tensor, frequency: Tensor, presence: Tensor) -> None:
    """Subtract ``frequency`` for each time that a row has written a token, and ``presence`` once, in place.

    These are OpenAI's penalties, with vLLM's reading of "the text so far": the answer, without the prompt.

    Args:
        logits: float32 ``[batch, vocabulary]``.
        history: int64 ``[batch, longest]``.
        written: bool of the same shape: which positions of it are the answer.
        frequency, presence: float32 ``[batch]``.
    """
    counts = _counts(logits, history, written)
    logits -= frequency[:, None] * counts + presence[:, None] * (counts > 0)


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


def _counts(logits: Tensor, tokens: Tensor, where: Tensor) -> Tensor:
    """float32 ``[batch, vocabulary]``: how often each token is among a row's ``tokens``, as in :func:`_occurring`."""
    batch, vocabulary = logits.shape
    counts = torch.zeros(batch, vocabulary + 1, device=logits.device)
    counted = torch.where(where, tokens, vocabulary).clamp(max=vocabulary)
    counts.scatter_add_(1, counted, torch.ones(counted.shape, device=logits.device))
    return counts[:, :vocabulary]


def keep_likeliest(logits: Tensor, counts: Tensor, largest: int) -> None:
    """Set all but the ``counts`` likeliest tokens of each row to -inf, in place; ties with the last one stay.

    Args:
        logits: float32 ``[batch, vocabulary]``.
        counts: int64 ``[batch]``, from 1 to the size of the vocabulary.
        largest: The largest of ``counts``, on the host.
    """
    last = logits.topk(largest, dim=-1).values.gather(1, counts[:, None] - 1)
    logits.masked_fill_(logits < last, -torch.inf)


def sample_nucleus(logits: Tensor, top_p: Tensor, uniforms: Tensor, min_p: Tensor | None = None) -> Tensor:
    """Sample one token a row from its nucleus, int64 ``[batch]``.

    Args:
        logits: float32 ``[batch, vocabulary]``, temperature already applied.
        top_p: float32 ``[batch]``: the nucleus is the smallest set of most likely tokens whose probability reaches it
            (Holtzman et al. 2019, arXiv:1904.09751), and always the most likely one.
        uniforms: float32 ``[batch]`` in [0, 1): where each row's cumulative distribution is inverted.
        min_p: float32 ``[batch]``: tokens of the nucleus with less than this share of the highest probability are left
            out (Nguyen et al. 2024, arXiv:2407.01082); 0 leaves out none, as does None.
    """
    probabilities, order = torch.softmax(logits, dim=-1).sort(dim=-1, descending=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    nucleus = torch.where(before < top_p[:, None], probabilities, 0.0)
    if min_p is not None:
        nucleus = torch.where(probabilities < min_p[:, None] * probabilities[:, :1], 0.0, nucleus)
    nucleus[:, 0] = probabilities[:, 0]  # rounding must never leave a row empty
    cumulative = nucleus.cumsum(dim=-1)
    index = torch.searchsorted(cumulative, (uniforms[:, None] * cumulative[:, -1:]).contiguous(), right=True)
    last = (nucleus > 0).sum(dim=-1, keepdim=True) - 1
    # Logits that are NaN leave no nucleus. Any token will do then, but an index out of range would break a GPU.
    return order.gather(1, torch.minimum(index, last).clamp(min=0))[:, 0]
