"""PyTorch's linear layer and norm for one row at a time.

A module of PyTorch looks for hooks when it is called, and for its parameters when it reads them. For one row this takes
about as long as the computation. These two do without; the rest is PyTorch's.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """``[..., in_features]`` to ``[..., out_features]``."""

    def __call__(self, x: Tensor) -> Tensor:
        """The product; hooks are not called."""
        own = self._parameters
        return F.linear(x, cast(Tensor, own["weight"]), own["bias"])


class LayerNorm(nn.LayerNorm):
    """``[..., width]`` in and out."""

    def __call__(self, x: Tensor) -> Tensor:
        """The normalised input; hooks are not called."""
        own = self._parameters
        return torch.layer_norm(x, self.normalized_shape, own["weight"], own["bias"], self.eps)
