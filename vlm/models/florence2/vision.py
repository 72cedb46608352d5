"""Florence-2's vision tower (DaViT, Ding et al. 2022, arXiv:2204.03645) and its projection into the language model.

transformers ``Florence2VisionBackbone`` and ``Florence2MultiModalProjector``. Grids have the shape
``[batch, height, width, channels]``; to a convolution the same memory is channels-last, so no copy is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.errors import CheckpointError
from vlm.layers import head
from vlm.layers.modules import LayerNorm, Linear
from vlm.layers.transformer import ACTIVATIONS, Activation, Mlp

_PARTS = 16


@dataclass(frozen=True, slots=True)
class Stage:
    """Sizes of one of DaViT's stages: a strided convolution, then ``depth`` pairs of a window and a channel block."""

    channels_in: int
    channels: int
    depth: int
    heads: int
    groups: int
    kernel: int
    stride: int
    padding: int
    norm_first: bool


@dataclass(frozen=True, slots=True)
class DaVitSpec:
    """Sizes of the tower, from ``vision_config``."""

    stages: tuple[Stage, ...]
    window: int
    mlp_ratio: float
    qkv_bias: bool
    activation: Activation
    positions: int
    frames: int
    projection: int

    @classmethod
    def read(cls, config: ConfigReader) -> DaVitSpec:
        """Read the native names of transformers' ``Florence2VisionConfig``. Raises CheckpointError."""
        widths = config.integers("embed_dim")
        columns = (
            (config.integer("in_channels", 3), *widths[:-1]),
            widths,
            *(config.integers(key) for key in ("depths", "num_heads", "num_groups", "patch_size", "patch_stride")),
            config.integers("patch_padding"),
            config.flags("patch_prenorm"),
        )
        if len({len(column) for column in columns}) != 1:
            raise CheckpointError(
                "config.json vision_config: its lists must be of the same length, one entry for each stage."
            )
        return cls(
            stages=tuple(Stage(*row) for row in zip(*columns, strict=True)),
            window=config.integer("window_size", 12),
            mlp_ratio=config.number("mlp_ratio", 4.0),
            qkv_bias=config.flag("qkv_bias", True),
            activation=config.one_of("activation_function", ACTIVATIONS, "gelu"),
            positions=config.integer("max_position_embeddings", 50),
            frames=config.integer("max_temporal_embeddings", 100),
            projection=config.integer("projection_dim"),
        )


class Embedding(nn.Module):
    """The convolution at the start of a stage, with a norm before or after it."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.conv = nn.Conv2d(stage.channels_in, stage.channels, stage.kernel, stage.stride, stage.padding)
        self.norm = LayerNorm(stage.channels_in if stage.norm_first else stage.channels)
        self.norm_first = stage.norm_first

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, height, width, channels_in]`` to a smaller grid of ``channels``."""
        if self.norm_first:
            return convolve(self.conv, self.norm(x))
        out: Tensor = self.norm(convolve(self.conv, x))
        return out


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of a grid whose channels come last."""
    out: Tensor = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return out


class WindowAttention(nn.Module):
    """Attention of the positions within each window; zeros that pad the grid take part, as in the paper."""

    def __init__(self, channels: int, heads: int, window: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = Linear(channels, 3 * channels, bias)
        self.out = Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, height, width, channels]`` in and out."""
        batch, height, width, channels = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        qkv = self.qkv(windows.reshape(-1, side * side, channels)).view(
            -1, side * side, 3, self.heads, channels // self.heads
        )
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2)
        out: Tensor = self.out(attended.flatten(2)).view(batch, rows, columns, side, side, channels)
        return out.transpose(2, 3).reshape(batch, rows * side, columns * side, channels)[:, :height, :width]


class ChannelAttention(nn.Module):
    """Attention among the channels of a group, over all positions."""

    def __init__(self, channels: int, groups: int, bias: bool) -> None:
        super().__init__()
        self.groups = groups
        self.qkv = Linear(channels, 3 * channels, bias)
        self.out = Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, height, width, channels]`` in and out."""
        positions = x.shape[1] * x.shape[2]
        qkv = self.qkv(x.flatten(1, 2)).view(len(x), positions, 3, self.groups, -1)
        queries, keys, values = qkv.permute(2, 0, 3, 4, 1).unbind(0)
        attend = _attend_in_parts if x.is_cuda and x.dtype != torch.float32 else _attend
        out: Tensor = self.out(attend(queries, keys, values).permute(0, 3, 1, 2).flatten(2))
        return out.view_as(x)


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of channels to channels, all ``[batch, groups, channels, positions]``."""
    return F.scaled_dot_product_attention(queries, keys, values, scale=queries.shape[-1] ** -0.5)


def _attend_in_parts(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same on a GPU in a narrow dtype, where the above would cast all of it to float32.

    The positions are divided into parts, so that the few products of channels, which are sums over all positions, keep
    the whole device busy. Scores are float32.
    """
    batch, groups, channels, positions = queries.shape
    parts = math.gcd(positions, _PARTS)
    by_part = (one.mT.reshape(-1, positions // parts, channels) for one in (queries, keys))
    scores = head.unrounded_products(next(by_part).mT, next(by_part)).view(batch * groups, parts, channels, channels)
    weights = (scores.sum(1) * positions**-0.5).softmax(-1).to(values.dtype)
    attended = torch.bmm(values.mT.reshape(-1, positions, channels), weights.mT)
    return attended.view(batch, groups, positions, channels).mT


class Block(nn.Module):
    """Depthwise convolution, attention, depthwise convolution, MLP: each is added to its input."""

    def __init__(self, attention: nn.Module, channels: int, spec: DaVitSpec) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = LayerNorm(channels)
        self.attention = attention
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm2 = LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * spec.mlp_ratio), spec.activation)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, height, width, channels]`` in and out."""
        x = x + convolve(self.conv1, x)
        x = x + self.attention(self.norm1(x))
        x = x + convolve(self.conv2, x)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class StageLayers(nn.Module):
    """One stage: its convolution, then window and channel blocks in turn."""

    def __init__(self, stage: Stage, spec: DaVitSpec) -> None:
        super().__init__()
        channels, bias = stage.channels, spec.qkv_bias
        windows = (WindowAttention(channels, stage.heads, spec.window, bias) for _ in range(stage.depth))
        groups = (ChannelAttention(channels, stage.groups, bias) for _ in range(stage.depth))
        self.embedding = Embedding(stage)
        self.spatial = nn.ModuleList(Block(attention, channels, spec) for attention in windows)
        self.channel = nn.ModuleList(Block(attention, channels, spec) for attention in groups)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, height, width, channels_in]`` to a smaller grid of ``channels``."""
        x = self.embedding(x)
        for spatial, channel in zip(self.spatial, self.channel, strict=True):
            x = channel(spatial(x))
        return x


class DaVit(nn.Module):
    """Images to a grid of features."""

    def __init__(self, spec: DaVitSpec) -> None:
        super().__init__()
        self.stages = nn.ModuleList(StageLayers(stage, spec) for stage in spec.stages)

    def forward(self, pixels: Tensor) -> Tensor:
        """``[batch, 3, height, width]`` to ``[batch, rows, columns, channels]``."""
        x = pixels.permute(0, 2, 3, 1)
        for stage in self.stages:
            x = stage(x)
        return x


class Projector(nn.Module):
    """Adds positions, prepends the mean of all features, and projects to the language model's width."""

    def __init__(self, spec: DaVitSpec) -> None:
        super().__init__()
        channels = spec.stages[-1].channels
        self.rows = nn.Parameter(torch.empty(spec.positions, channels // 2))
        self.columns = nn.Parameter(torch.empty(spec.positions, channels - channels // 2))
        self.frames = nn.Parameter(torch.empty(spec.frames, channels))  # one image uses the first only
        self.projection = Linear(channels, spec.projection, bias=False)
        self.norm = LayerNorm(spec.projection)

    def forward(self, grid: Tensor) -> Tensor:
        """``[batch, rows, columns, channels]`` to ``[batch, 1 + rows * columns, projection]``."""
        _, height, width, _ = grid.shape
        columns = self.columns[:width].expand(height, -1, -1)
        rows = self.rows[:height].unsqueeze(1).expand(-1, width, -1)
        features = (grid + torch.cat([columns, rows], dim=-1)).flatten(1, 2) + self.frames[0]
        features = torch.cat([features.mean(dim=1, keepdim=True), features], dim=1)
        out: Tensor = self.norm(self.projection(features))
        return out
