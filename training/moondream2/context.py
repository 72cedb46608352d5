"""Attention in training: each image once, then several examples that attend to it and not to each other.

Both classes implement :class:`vlm.layers.attention.AttentionContext`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm.layers.attention import Bidirectional


class Prefix(Bidirectional):
    """Attention among all positions of an image; keeps the keys and values for :class:`Continuation`."""

    def __init__(self, positions: int) -> None:
        super().__init__(positions)
        self.cache: dict[int, Tensor] = {}

    def append(self, layer: int, keys_values: Tensor) -> Tensor:
        """Keep the keys and values of a layer."""
        self.cache[layer] = keys_values
        return keys_values


class Continuation(Bidirectional):
    """Attention of sequences, each to its image and causally to itself."""

    def __init__(self, prefix: Prefix, images: Sequence[int], queries: int) -> None:
        """``images``: for each sequence, the index of its image in the batch of ``prefix``."""
        super().__init__(queries)
        prefix_length = prefix.positions.shape[1]
        self.positions = self.positions + prefix_length
        image_mask = torch.ones(queries, prefix_length, dtype=torch.bool)
        self.mask = torch.cat([image_mask, torch.ones(queries, queries, dtype=torch.bool).tril()], dim=1)[None, None]
        self._prefix, self._images = prefix, list(images)

    def append(self, layer: int, keys_values: Tensor) -> Tensor:
        """The keys and values of the image, then those of the sequences."""
        image = self._prefix.cache[layer][self._images].to(keys_values.dtype)
        return torch.cat([image, keys_values], dim=1)
