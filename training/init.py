"""Initial weights with which a tiny model learns within minutes on a CPU.

Scaled linear layers, a whitened first convolution, smooth embeddings of positions and locations. They need no change to
a checkpoint's format.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def scale_layers(model: nn.Module, residual: tuple[str, ...], skip: tuple[str, ...] = ()) -> None:
    """Initialise linear layers by Xavier, those that end a residual branch with a smaller gain, and convolutions by He.

    Args:
        model: Changed in place.
        residual: Suffixes of the names of layers whose output is added to a residual stream.
        skip: Substrings of the names of layers to leave unchanged.
    """
    for name, module in model.named_modules():
        if any(part in name for part in skip):
            continue
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, gain=0.7 if name.endswith(residual) else 1.0)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)


@torch.no_grad()
def whiten(weight: Tensor, pixels: Tensor, stride: int, gain: float) -> None:
    """Set a first convolution to the leading principal components of its windows, each scaled to the same variance.

    Args:
        weight: ``[channels, 3, kernel, kernel]``, changed in place.
        pixels: Normalised images ``[batch, 3, height, width]``.
        stride: The convolution's stride.
        gain: Standard deviation of every output channel.
    """
    channels, _, kernel, _ = weight.shape
    windows = F.unfold(pixels, kernel, stride=stride).transpose(1, 2).flatten(0, 1)
    windows = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))[:40_000]]
    windows = windows - windows.mean(0)
    variances, axes = torch.linalg.eigh(windows.T @ windows / len(windows))
    variances, axes = variances.flip(0), axes.flip(1)
    count = min(channels, len(variances))
    filters = axes[:, :count] / (variances[:count] + 3e-3 * variances[0]).sqrt()
    weight.normal_(0, 0.02)
    weight[:count] = filters.T.reshape(count, 3, kernel, kernel) * gain


def sinusoids(positions: Tensor, width: int, low: float, high: float) -> Tensor:
    """Sines and cosines of ``positions`` at frequencies from ``low`` to ``high``: ``[len(positions), width]``."""
    frequencies = torch.exp(torch.linspace(math.log(low), math.log(high), width // 2))
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_sinusoids(side: int, width: int) -> Tensor:
    """Sinusoids of a square grid, row by row: ``[side * side, width]``, half of them for rows, half for columns."""
    line = sinusoids(torch.arange(side), width // 2, 0.15, 2.0)
    rows = line[:, None].expand(side, side, -1)
    columns = line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)


def interleave_heads(features: Tensor, heads: int) -> Tensor:
    """Reorder the last axis so that each head's part of it has every ``heads``-th feature."""
    order = torch.arange(features.shape[-1]).view(-1, heads).T.flatten()
    return features[..., order]


def ridge_regression(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the linear layer that maps ``inputs`` closest to ``targets``, both ``[samples, features]``."""
    input_mean, target_mean = inputs.mean(0), targets.mean(0)
    inputs, targets = inputs - input_mean, targets - target_mean
    ridge = 1e-3 * (inputs.var() * len(inputs)) * torch.eye(inputs.shape[1])
    weight = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets).T
    return weight, target_mean - weight @ input_mean


def smooth_line(count: int, width: int, harmonics: int = 24) -> Tensor:
    """Embeddings of ``count`` positions on a line, similar for neighbours: ``[count, width]``, std 0.05."""
    positions = torch.linspace(0, 1, count)[:, None]
    features = torch.cat([torch.cos(math.pi * positions * k) / (1 + k / 6) for k in range(1, harmonics + 1)], dim=1)
    mixed = features @ torch.randn(harmonics, width)
    return mixed / mixed.std() * 0.05 + torch.randn(count, width) * 0.002


def smooth_plane(side: int, width: int, harmonics: int = 8) -> Tensor:
    """Embeddings of the cells of a square, row by row, similar for neighbours: ``[side * side, width]``, std 0.05."""
    positions = torch.linspace(0, 1, side)[:, None]
    line = torch.cat([torch.cos(math.pi * positions * k) / (1 + k / 4) for k in range(1, harmonics + 1)], dim=1)
    across, down = line[None].expand(side, side, -1), line[:, None].expand(side, side, -1)
    both = (across[..., :, None] * down[..., None, :]).flatten(2)
    mixed = across @ torch.randn(harmonics, width) + down @ torch.randn(harmonics, width)
    mixed = (mixed + both @ torch.randn(harmonics**2, width) * 0.6).flatten(0, 1)
    return mixed / mixed.std() * 0.05 + torch.randn(side**2, width) * 0.003


def gaussian_targets(count: int, std: float) -> Tensor:
    """For each of ``count`` bins, a normal distribution around it over all bins: ``[count, count]``, rows sum to 1."""
    bins = torch.arange(count).float()
    weights = torch.exp(-((bins[None] - bins[:, None]) ** 2) / (2 * std**2))
    return weights / weights.sum(1, keepdim=True)
