"""The last matrix of a head: hidden states to logits, which are float32 whatever the weights' dtype is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def logits(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Hidden states ``[batch, width]`` to float32 logits ``[batch, rows of weight]``.

    A narrow dtype has few distinct values: bfloat16 often rounds the best two logits to the same one, and the choice
    between them is then an accident. The products of narrow numbers are summed in float32 anyway, so it
    costs nothing to leave the sums unrounded.
    """
    if hidden.dtype == torch.float32:
        return F.linear(hidden, weight, bias)
    sums = _unrounded_product(hidden, weight)
    return sums if bias is None else sums + bias


def _unrounded_product(hidden: Tensor, weight: Tensor) -> Tensor:
    """``hidden @ weight.T`` in float32; on CUDA the weights are read as they are, elsewhere they are cast first."""
    if hidden.is_cuda:
        return torch.mm(hidden, weight.T, out_dtype=torch.float32)
    return F.linear(hidden.float(), weight.float())


def unrounded_products(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` of two batches of matrices, likewise in float32."""
    if left.is_cuda:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())
