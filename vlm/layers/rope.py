"""Rotary positions: queries and keys are rotated by an angle that grows with their position.

Su et al. 2021, arXiv:2104.09864. Nothing is learned or stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]
"""Cosines of the angles, and sines with the sign that they have in :func:`rotate`, float32 ``[batch or 1, 1, queries,
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
        steps = torch.arange(0, self.dims, 2, device=positions.device).float() / self.dims
        angles = positions.float()[:, None, :, None] * (1.0 / self.theta**steps)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate ``[batch, heads, queries, head_dim]``; dimension i is paired with i + dims / 2, as in GPT-NeoX."""
    cos, sin = rotation
    turned, rest = x[..., : cos.shape[-1]].float(), x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    rotated = turned * cos + torch.cat([second, first], dim=-1) * sin
    return torch.cat([rotated.to(x.dtype), rest], dim=-1)
