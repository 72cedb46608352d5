"""BLIP's vision tower: a ViT with a class token and learned positions (transformers ``BlipVisionModel``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers.attention import Bidirectional
from vlm.layers.transformer import ACTIVATIONS, Transformer, TransformerSpec


def vision_spec(config: ConfigReader) -> TransformerSpec:
    """The tower's transformer from ``vision_config``; defaults are those of ``BlipVisionConfig``."""
    return TransformerSpec(
        layers=config.integer("num_hidden_layers", 12),
        width=config.integer("hidden_size", 768),
        heads=config.integer("num_attention_heads", 12),
        mlp_width=config.integer("intermediate_size", 3072),
        norm="pre",
        activation=config.one_of("hidden_act", ACTIVATIONS, "gelu"),
        eps=config.number("layer_norm_eps", 1e-5),
        final_norm=True,
    )


class BlipVision(nn.Module):
    """Images to one vector for each patch, after that of the class token."""

    def __init__(self, config: ConfigReader) -> None:
        super().__init__()
        spec = vision_spec(config)
        patch = config.integer("patch_size", 16)
        self.image_size = config.integer("image_size", 384)
        self.width = spec.width
        self.tokens = (self.image_size // patch) ** 2 + 1
        self.patches = nn.Conv2d(3, spec.width, kernel_size=patch, stride=patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, spec.width))
        self.positions = nn.Parameter(torch.empty(1, self.tokens, spec.width))
        self.transformer = Transformer(spec)

    def forward(self, pixels: Tensor) -> Tensor:
        """``[batch, 3, image_size, image_size]`` to ``[batch, tokens, width]``."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(pixels), -1, -1), patches], dim=1) + self.positions
        out: Tensor = self.transformer(x, Bidirectional(self.tokens, device=pixels.device))
        return out
