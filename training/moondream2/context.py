"""Attention in training: an image's positions once, then all that is asked about it, each on its own.

Both implement :class:`vlm.layers.attention.AttentionContext`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm.layers.attention import Bidirectional


class Prefix(Bidirectional):
    """Images: every position sees every other; keys and values are kept for what follows."""

    def __init__(self, positions: int) -> None:
        super().__init__(positions)
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep them."""
        self.kept[layer] = (keys, values)
        return keys, values


class Following(Bidirectional):
    """Sequences, each of which sees its image and its own past."""

    def __init__(self, prefix: Prefix, images: Sequence[int], queries: int) -> None:
        """``images``: of each sequence, its place among those that ``prefix`` has seen."""
        super().__init__(queries)
        before = prefix.positions.shape[1]
        self.positions = self.positions + before
        seen = torch.ones(queries, before, dtype=torch.bool)
        self.mask = torch.cat([seen, torch.ones(queries, queries, dtype=torch.bool).tril()], dim=1)[None, None]
        self._prefix, self._images = prefix, list(images)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Behind those of the image."""
        before = [part[self._images].to(keys.dtype) for part in self._prefix.kept[layer]]
        return torch.cat([before[0], keys], dim=2), torch.cat([before[1], values], dim=2)
