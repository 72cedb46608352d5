"""Where training begins: weights that let a tiny model learn within minutes.

Owns initial values: spread of linear layers, a whitened first convolution, smooth positions and location tokens.
Knows layers, not models. Each recipe was worth it on the CPU; none leaves a trace in a checkpoint's format.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def spread(model: nn.Module, narrow: tuple[str, ...], skip: tuple[str, ...] = ()) -> None:
    """Xavier for linear layers, with a smaller gain for those that end a residual branch, and for convolutions He's.

    Args:
        model: Is changed in place.
        narrow: Ends of the names of layers whose output is added to a residual stream.
        skip: Parts of names of layers to leave alone.
    """
    for name, module in model.named_modules():
        if any(part in name for part in skip):
            continue
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, gain=0.7 if name.endswith(narrow) else 1.0)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)


@torch.no_grad()
def whiten(weight: Tensor, pixels: Tensor, stride: int, gain: float) -> None:
    """Make a first convolution the leading principal components of its windows, each scaled to unit variance.

    Args:
        weight: ``[channels, 3, kernel, kernel]``, changed in place.
        pixels: Normalised images ``[batch, 3, height, width]``.
        stride: Of the convolution.
        gain: Standard deviation of every output.
    """
    channels, _, kernel, _ = weight.shape
    windows = F.unfold(pixels, kernel, stride=stride).transpose(1, 2).flatten(0, 1)
    windows = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:40_000]]
    windows = windows - windows.mean(0)
    spreads, axes = torch.linalg.eigh(windows.T @ windows / len(windows))
    spreads, axes = spreads.flip(0), axes.flip(1)
    count = min(channels, len(spreads))
    filters = axes[:, :count] / (spreads[:count] + 3e-3 * spreads[0]).sqrt()
    weight.normal_(0, 0.02)
    weight[:count] = filters.T.reshape(count, 3, kernel, kernel) * gain


def waves(positions: Tensor, width: int, low: float, high: float) -> Tensor:
    """Sines and cosines of ``positions`` at frequencies from ``low`` to ``high``: ``[len(positions), width]``."""
    frequencies = torch.exp(torch.linspace(math.log(low), math.log(high), width // 2))
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_waves(side: int, width: int) -> Tensor:
    """Positions of a ``side`` x ``side`` grid, row by row: half of the width for rows, half for columns."""
    line = waves(torch.arange(side), width // 2, 0.15, 2.0)
    rows = line[:, None].expand(side, side, -1)
    columns = line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)


def shared_out(features: Tensor, heads: int) -> Tensor:
    """Reorder the last axis so that each head's part of it holds every ``heads``-th feature."""
    order = torch.arange(features.shape[-1]).view(-1, heads).T.flatten()
    return features[..., order]


def fitted(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear layer that comes nearest to ``targets`` (ridge regression)."""
    centre, middle = inputs.mean(0), targets.mean(0)
    inputs, targets = inputs - centre, targets - middle
    ridge = 1e-3 * (inputs.var() * len(inputs)) * torch.eye(inputs.shape[1])
    weight = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets).T
    return weight, middle - weight @ centre


def smooth_line(count: int, width: int, harmonics: int = 24) -> Tensor:
    """Embeddings of ``count`` ordered places on a line: neighbours are alike. Standard deviation 0.05."""
    places = torch.linspace(0, 1, count)[:, None]
    features = torch.cat([torch.cos(math.pi * places * k) / (1 + k / 6) for k in range(1, harmonics + 1)], dim=1)
    mixed = features @ torch.randn(harmonics, width)
    return mixed / mixed.std() * 0.05 + torch.randn(count, width) * 0.002


def smooth_plane(side: int, width: int, harmonics: int = 8) -> Tensor:
    """Embeddings of ``side`` x ``side`` cells, row by row: neighbours are alike. Standard deviation 0.05."""
    places = torch.linspace(0, 1, side)[:, None]
    line = torch.cat([torch.cos(math.pi * places * k) / (1 + k / 4) for k in range(1, harmonics + 1)], dim=1)
    across, down = line[None].expand(side, side, -1), line[:, None].expand(side, side, -1)
    both = (across[..., :, None] * down[..., None, :]).flatten(2)
    mixed = across @ torch.randn(harmonics, width) + down @ torch.randn(harmonics, width)
    mixed = (mixed + both @ torch.randn(harmonics**2, width) * 0.6).flatten(0, 1)
    return mixed / mixed.std() * 0.05 + torch.randn(side**2, width) * 0.003


def neighbours(count: int, reach: float) -> Tensor:
    """For each of ``count`` bins, a bell curve over all bins as the target: ``[count, count]``, rows sum to 1."""
    bins = torch.arange(count).float()
    bells = torch.exp(-((bins[None] - bins[:, None]) ** 2) / (2 * reach**2))
    return bells / bells.sum(1, keepdim=True)
