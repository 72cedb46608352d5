"""Rotary positions: queries and keys are rotated by an angle that grows with their position.

Su et al. 2021, arXiv:2104.09864. Nothing is learned or stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]
"""Cosines of the angles, and sines with the sign that they have in :func:`rotate`, float32 ``[batch or 1, queries, 1,
dims]``."""


@dataclass(frozen=True, slots=True)
class Rotary:
    """Which part of each head is rotated, and how fast.

    Attributes:
        dims: Number of the first dimensions of each head that are rotated, even; the others stay as they are.
        theta: About the number of positions in which the slowest pair rotates by one radian.
    """

    dims: int
    theta: float = 10000.0

    def rotation(self, positions: Tensor) -> Rotation:
        """Angles of positions, int64 ``[batch or 1, queries]``; float32 whatever the model's dtype, as in training."""
        angles = positions.float()[:, :, None, None] * _frequencies(self, positions.device)
        return angles.cos(), angles.sin()


@cache
def _frequencies(rotary: Rotary, device: torch.device) -> Tensor:
    """Radians by which each dimension is rotated in one position, float32 ``[dims]``.

    They are negative in the first half: so their sines have the sign that they need, and their cosines are the same.
    """
    steps = torch.arange(0, rotary.dims, 2, device=device).float() / rotary.dims
    frequencies = 1.0 / rotary.theta**steps
    return torch.cat([-frequencies, frequencies])


def rotate(x: Tensor, rotation: Rotation) -> None:
    """Rotate ``[batch, queries, heads, head_dim]`` in place; dimension i is paired with i + dims / 2, as in NeoX."""
    cos, sin = rotation
    turned = x[..., : cos.shape[-1]]
    exact = turned.float()
    first, second = exact.chunk(2, dim=-1)
    turned.copy_(torch.addcmul(exact * cos, torch.cat([second, first], dim=-1), sin))
