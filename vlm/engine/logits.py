"""Operations on the logits of a batch: biases, penalties and bans in place, and sampling. Each row is by itself.

Which row uses which of them, and in which order, is decided in :mod:`vlm.engine.sampler`.
"""

from __future__ import annotations

import torch
from torch import Tensor

Where = tuple[Tensor, Tensor]
"""Rows and tokens, int64 ``[n]`` each: which logits are changed."""


def add_biases(logits: Tensor, where: Where, biases: Tensor) -> None:
    """Add ``biases`` float32 ``[n]`` to logits of ``[batch, vocabulary]``, in place."""
    logits.index_put_(where, biases, accumulate=True)


def penalise_repeats(logits: Tensor, where: Where, penalties: Tensor) -> None:
    """Divide positive and multiply negative logits by ``penalties`` float32 ``[n]``, in place.

    1 is no penalty (Keskar et al. 2019, arXiv:1909.05858). A token given twice for a row is penalised once.
    """
    found = logits[where]
    logits[where] = torch.where(found > 0, found / penalties, found * penalties)


def penalise_counts(logits: Tensor, where: Where, times: Tensor, frequency: Tensor, presence: Tensor) -> None:
    """Subtract ``frequency`` for each of the ``times`` that a row has written a token, and ``presence`` once, in place.

    All three are float32 ``[n]``, and no pair of a row and a token may come twice. These are OpenAI's penalties, with
    vLLM's reading of "the text so far": the answer, without the prompt.
    """
    logits[where] -= frequency * times + presence


def ban(logits: Tensor, where: Where) -> None:
    """Set logits to -inf, in place."""
    logits[where] = -torch.inf


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
