"""Kosmos-2's vision tower, a CLIP ViT, and the resampler that reduces its output to a fixed number of vectors.

transformers ``Kosmos2VisionModel`` and ``Kosmos2ImageToTextProjection``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers.attention import Bidirectional, CrossAttention, by_head
from vlm.layers.modules import Linear
from vlm.layers.transformer import ACTIVATIONS, Transformer, TransformerSpec


def vision_spec(config: ConfigReader) -> TransformerSpec:
    """The tower's transformer from ``vision_config``; defaults are those of ``Kosmos2VisionConfig``."""
    return TransformerSpec(
        layers=config.integer("num_hidden_layers", 24),
        width=config.integer("hidden_size", 1024),
        heads=config.integer("num_attention_heads", 16),
        mlp_width=config.integer("intermediate_size", 4096),
        norm="pre",
        activation=config.one_of("hidden_act", ACTIVATIONS, "quick_gelu"),
        eps=config.number("layer_norm_eps", 1e-5),
        embedding_norm=True,
        final_norm=True,
    )


class Kosmos2Vision(nn.Module):
    """Images to one vector for each patch, after that of the class token; every vector is normalised to length 1."""

    def __init__(self, config: ConfigReader) -> None:
        super().__init__()
        spec = vision_spec(config)
        patch = config.integer("patch_size", 14)
        self.width = spec.width
        self.tokens = (config.integer("image_size", 224) // patch) ** 2 + 1
        self.patches = nn.Conv2d(3, spec.width, kernel_size=patch, stride=patch, bias=False)
        self.class_token = nn.Parameter(torch.empty(spec.width))
        self.positions = nn.Parameter(torch.empty(self.tokens, spec.width))
        self.transformer = Transformer(spec)

    def forward(self, pixels: Tensor) -> Tensor:
        """``[batch, 3, image_size, image_size]`` to ``[batch, tokens, width]``."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(pixels), 1, -1), patches], dim=1) + self.positions
        return F.normalize(self.transformer(x, Bidirectional(self.tokens, device=pixels.device)), dim=-1)


class LatentProjection(nn.Module):
    """Learned queries, a fixed number, attend to the image and to themselves; the decoder reads the result."""

    def __init__(self, vision_width: int, width: int, heads: int, queries: int) -> None:
        super().__init__()
        self.dense = Linear(vision_width, width)
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.attention = CrossAttention(width, heads, width)

    def forward(self, features: Tensor) -> Tensor:
        """``[batch, tokens, vision_width]`` to ``[batch, queries, width]``."""
        queries = self.queries.expand(len(features), -1, -1)
        keys_values = self.attention.keys_values(torch.cat([self.dense(features), queries], dim=1))
        return self.attention.attend(queries, *by_head(keys_values))
