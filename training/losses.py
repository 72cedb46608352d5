"""Losses of texts in which some tokens are locations: cross-entropy, with soft targets for the locations.

A bin beside the right one is nearly right, but cross-entropy with a single target treats all other bins as equally
wrong. A location's target is therefore a distribution around the right bin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""The target of a position that does not count."""


@dataclass(frozen=True)
class Locations:
    """Consecutive token ids that mean locations.

    Attributes:
        first: The first id.
        targets: For each location, the target distribution over all of them: ``[count, count]``.
        weight: Weight of a location's loss; that of a word is 1.
    """

    first: int
    targets: Tensor
    weight: float


def token_loss(logits: Tensor, targets: Tensor, locations: Locations) -> tuple[Tensor, Mapping[str, float]]:
    """The loss of ``logits [tokens, vocabulary]`` for ``targets [tokens]``, all of which count.

    Returns:
        The loss, the accuracy of words (``words``) and the share of locations close to the right one (``locations``).
    """
    logs = F.log_softmax(logits.float(), dim=-1)
    bins = targets - locations.first
    is_location = (bins >= 0) & (bins < len(locations.targets))
    word_logs, bins = logs[~is_location], bins[is_location]
    word_loss = -word_logs.gather(1, targets[~is_location][:, None]).sum()
    location_logs = logs[is_location][:, locations.first : locations.first + len(locations.targets)]
    location_loss = -(locations.targets[bins] * location_logs).sum()
    total = len(word_logs) + locations.weight * len(bins)
    with torch.no_grad():
        correct = word_logs.argmax(1) == targets[~is_location]
        nearest = locations.targets[bins].gather(1, location_logs.argmax(1, keepdim=True))
        close = nearest > 0.1 * locations.targets.max()
    loss = (word_loss + locations.weight * location_loss) / total
    return loss, {"words": share(correct), "locations": share(close)}


def share(hits: Tensor) -> float:
    """The share of ``hits`` that is true; 1 if there are none."""
    return float(hits.float().mean()) if len(hits) else 1.0


def by_length(rows: Sequence[Sequence[int]], groups: int = 2) -> list[list[int]]:
    """The indices of ``rows`` in ``groups`` of similar length, so that batches need little padding."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    size = -(-len(order) // groups)
    return [order[first : first + size] for first in range(0, len(order), size)]


def padded(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Rows of different lengths as one int64 tensor ``[rows, longest]``, padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])
