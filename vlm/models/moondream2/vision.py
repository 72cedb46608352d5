"""Moondream 2's vision tower: a ViT on each crop, the tiles put together again, and a projection.

``vision.py`` in the repository of vikhyatk/moondream2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers.attention import Bidirectional
from vlm.layers.modules import Linear
from vlm.layers.transformer import Mlp, Transformer, TransformerSpec
from vlm.models.moondream2.revisions import grid

CROPS_AT_ONCE = 64
"""Maximum number of crops in one pass of the ViT, which bounds its memory."""


def vision_spec(config: ConfigReader) -> TransformerSpec:
    """The ViT's transformer from config.json's ``vision``."""
    return TransformerSpec(
        layers=config.integer("enc_n_layers"),
        width=config.integer("enc_dim"),
        heads=config.integer("enc_n_heads"),
        mlp_width=config.integer("enc_ff_dim"),
        norm="pre",
        activation="gelu_tanh",
        final_norm=True,
    )


class Moondream2Vision(nn.Module):
    """Images of any size to ``grid * grid`` vectors each."""

    def __init__(self, config: ConfigReader) -> None:
        super().__init__()
        spec = vision_spec(config)
        self.grid, self.margin = grid(config), config.integer("overlap_margin")
        self.patch = config.integer("enc_patch_size")
        channels = config.integer("in_channels")
        self.patches = Linear(channels * self.patch**2, spec.width)
        self.positions = nn.Parameter(torch.empty(1, self.grid**2, spec.width))
        self.transformer = Transformer(spec)
        self.projection = Mlp(
            2 * spec.width, config.integer("proj_inner_dim"), "gelu_tanh", out_width=config.integer("proj_out_dim")
        )

    def forward(self, canvases: Sequence[Tensor]) -> Sequence[Tensor]:
        """Canvases as :mod:`~vlm.models.moondream2.tiling` makes them, to ``[grid * grid, proj_out_dim]`` each."""
        cut = [self.crops(canvas) for canvas in canvases]
        encoded = self._encode_all(torch.cat([crops for crops, _, _ in cut]))
        by_image = encoded.split_with_sizes([len(crops) for crops, _, _ in cut])
        pooled = [self.pooled(one, rows, columns) for one, (_, rows, columns) in zip(by_image, cut, strict=True)]
        both = [torch.cat([one[0], tiles], dim=-1) for one, tiles in zip(by_image, pooled, strict=True)]
        features: Tensor = self.projection(torch.stack(both))
        return features.unbind()

    def crops(self, canvas: Tensor) -> tuple[Tensor, int, int]:
        """A canvas ``[3, height, width]`` to crops ``[1 + tiles, 3, side, side]``, and its rows and columns of tiles.

        The whole image comes first, then the tiles row by row; a single tile would be the same again and is left out.
        """
        side, stride = self.grid * self.patch, (self.grid - 2 * self.margin) * self.patch
        overview, detail = canvas[None, :, -side:, :side], canvas[:, :-side]
        if not detail.shape[1]:
            return overview, 1, 1
        tiles = detail.unfold(1, side, stride).unfold(2, side, stride)  # [3, rows, columns, side, side]
        _, rows, columns, _, _ = tiles.shape
        return torch.cat([overview, tiles.flatten(1, 2).transpose(0, 1)]), rows, columns

    def _encode_all(self, crops: Tensor) -> Tensor:
        starts = range(0, len(crops), CROPS_AT_ONCE)
        return torch.cat([self.encode(crops[start : start + CROPS_AT_ONCE]) for start in starts])

    def encode(self, crops: Tensor) -> Tensor:
        """``[crops, 3, side, side]`` to ``[crops, grid * grid, width]``."""
        patches = F.pixel_unshuffle(crops, self.patch).flatten(2).transpose(1, 2)
        x = self.patches(patches) + self.positions
        features: Tensor = self.transformer(x, Bidirectional(self.grid**2, device=crops.device))
        return features

    def pooled(self, features: Tensor, rows: int, columns: int) -> Tensor:
        """Features of one image's crops ``[1 + tiles, grid * grid, width]`` to one grid ``[grid * grid, width]``."""
        if rows * columns == 1:
            return features[0]
        stitched = self.stitched(features[1:].view(rows * columns, self.grid, self.grid, -1), rows, columns)
        pooled = F.adaptive_avg_pool2d(stitched.permute(2, 0, 1), self.grid)
        return pooled.flatten(1).transpose(0, 1)

    def stitched(self, tiles: Tensor, rows: int, columns: int) -> Tensor:
        """Tiles ``[rows * columns, grid, grid, width]`` side by side, without the margins in which they overlap."""
        strips = [
            torch.cat(
                [tiles[row * columns + column][:, self._own(column, columns)] for column in range(columns)], dim=1
            )
            for row in range(rows)
        ]
        return torch.cat([strip[self._own(row, rows)] for row, strip in enumerate(strips)])

    def _own(self, index: int, count: int) -> slice:
        """The part of a tile, in patches, that is kept; it is the tile ``index`` of ``count`` in its row or column."""
        return slice(self.margin if index else 0, self.grid if index == count - 1 else self.grid - self.margin)
