"""Losses over tokens of which some are places: words by cross-entropy, places by a bell over their neighbours.

A bin beside the true one is nearly right; plain cross-entropy would call it as wrong as any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""A target that no loss is taken of."""


@dataclass(frozen=True)
class Places:
    """Consecutive token ids that stand for places.

    Attributes:
        first: Id of the first one.
        targets: For each place the wanted distribution over all: ``[count, count]``.
        weight: Of a place's loss, where a word's is 1.
    """

    first: int
    targets: Tensor
    weight: float


def token_loss(logits: Tensor, targets: Tensor, places: Places) -> tuple[Tensor, Mapping[str, float]]:
    """Loss of ``logits [tokens, vocabulary]`` for ``targets [tokens]``, all of which count.

    Returns:
        The loss, and the share of words that are right (``words``) and of places within the bell (``places``).
    """
    logs = F.log_softmax(logits.float(), dim=-1)
    bins = targets - places.first
    placed = (bins >= 0) & (bins < len(places.targets))
    word_logs, bins = logs[~placed], bins[placed]
    words = -word_logs.gather(1, targets[~placed][:, None]).sum()
    place_logs = logs[placed][:, places.first : places.first + len(places.targets)]
    bells = -(places.targets[bins] * place_logs).sum()
    total = len(word_logs) + places.weight * len(bins)
    with torch.no_grad():
        right = word_logs.argmax(1) == targets[~placed]
        near = places.targets[bins].gather(1, place_logs.argmax(1, keepdim=True)) > 0.1 * places.targets.max()
    return (words + places.weight * bells) / total, {"words": share(right), "places": share(near)}


def share(hits: Tensor) -> float:
    """The part of ``hits`` that is true; all of nothing."""
    return float(hits.float().mean()) if len(hits) else 1.0


def by_length(rows: Sequence[Sequence[int]], groups: int = 2) -> list[list[int]]:
    """Which rows go together so that little is filled up: their places, in ``groups`` of like length."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    size = -(-len(order) // groups)
    return [order[first : first + size] for first in range(0, len(order), size)]


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows of different lengths as one tensor, filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
