"""Coordinates and sizes to vectors, and hidden states to logits of coordinates and sizes.

``region.py`` in the repository of vikhyatk/moondream2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers.modules import Linear
from vlm.layers.transformer import Mlp


class Region(nn.Module):
    """Encoders, on random Fourier features (Tancik et al. 2020, arXiv:2006.10739), and decoders of such numbers."""

    def __init__(self, config: ConfigReader) -> None:
        super().__init__()
        width, inner = config.integer("dim"), config.integer("inner_dim")
        coordinate, size = config.integer("coord_feat_dim"), config.integer("size_feat_dim")
        self.bins, size_out = config.integer("coord_out_dim"), config.integer("size_out_dim")
        self.size_bins = size_out // 2
        self.even_sizes = config.flag("even_sizes", False)
        self.coordinate_features = nn.Parameter(torch.empty(1, coordinate // 2))
        self.coordinate_encoder = Linear(coordinate, width)
        self.coordinate_decoder = Mlp(width, inner, "gelu_tanh", out_width=self.bins)
        self.size_features = nn.Parameter(torch.empty(2, size // 2))
        self.size_encoder = Linear(size, width)
        self.size_decoder = Mlp(width, inner, "gelu_tanh", out_width=size_out)

    def embed(self, values: Tensor) -> Tensor:
        """Coordinates ``[..., 1]`` or sizes ``[..., 2]`` in 0..1 to ``[..., width]``."""
        if values.shape[-1] == 1:
            out: Tensor = self.coordinate_encoder(_fourier(values, self.coordinate_features))
        else:
            out = self.size_encoder(_fourier(values, self.size_features))
        return out

    def embed_bins(self, bins: Tensor) -> Tensor:
        """Bins of coordinates, int64 of any shape, to ``[..., width]``."""
        return self.embed((bins.float() / self.bins)[..., None])

    def embed_size_bins(self, pairs: Tensor) -> Tensor:
        """Bins of sizes, width and height as one number, int64 of any shape, to ``[..., width]``."""
        bins = torch.stack([pairs // self.size_bins, pairs % self.size_bins], dim=-1).float()
        if self.even_sizes:
            return self.embed(bins / self.size_bins)
        return self.embed(torch.pow(2.0, bins / (self.size_bins - 1) * 10 - 10))

    def coordinate_logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, bins]``."""
        return self.coordinate_decoder.logits(hidden)

    def size_logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, 2, size_bins]``: widths, then heights."""
        logits = self.size_decoder.logits(hidden)
        return logits.view(*logits.shape[:-1], 2, self.size_bins)


def _fourier(values: Tensor, features: Tensor) -> Tensor:
    angles = (2 * math.pi * values.to(features.dtype)) @ features
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
