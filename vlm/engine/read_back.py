"""Reads tensors of one step back from the device in one transfer, because each transfer waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def read_back(parts: Sequence[Tensor | None]) -> list[Any]:
    """Each part as nested lists of its shape; None stays None.

    Args:
        parts: Tensors of one device: float32, bool, or int64 below 2 ** 53, which float64 holds exactly.
    """
    tensors = [part for part in parts if part is not None]
    if all(part.device.type == "cpu" for part in tensors):
        return [None if part is None else part.tolist() for part in parts]
    packed = torch.cat([part.flatten().double() for part in tensors]).cpu()
    pieces = iter(packed.split_with_sizes([part.numel() for part in tensors]))
    return [None if part is None else next(pieces).to(part.dtype).view(part.shape).tolist() for part in parts]
