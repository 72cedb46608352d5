"""Rows of different lengths as one rectangular tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm.layers.upload import upload


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Token ids as int64 ``[rows, longest]``; padded with id 0, which masks must hide."""
    longest = max(len(row) for row in rows)
    return upload([[*row, *[0] * (longest - len(row))] for row in rows], device, torch.long)
