"""Moondream 2's decoder: parallel blocks with rotary positions, as Phi's, and a head of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers.rope import Rotary
from vlm.layers.transformer import Transformer, TransformerSpec


def text_spec(config: ConfigReader) -> TransformerSpec:
    """The decoder's transformer from config.json's ``text``. Half of each head has rotary positions."""
    width, heads = config.integer("dim"), config.integer("n_heads")
    return TransformerSpec(
        layers=config.integer("n_layers"),
        width=width,
        heads=heads,
        mlp_width=config.integer("ff_dim"),
        norm="parallel",
        activation="gelu_tanh",
        kv_heads=config.integer("n_kv_heads", heads),
        rotary=Rotary(width // heads // 2),
    )


class Moondream2Text(nn.Module):
    """Tokens in, logits out, by two matrices."""

    def __init__(self, config: ConfigReader) -> None:
        super().__init__()
        self.spec = text_spec(config)
        self.max_positions = config.integer("max_context")
        self.vocabulary = config.integer("vocab_size")
        self.tokens = nn.Parameter(torch.empty(self.vocabulary, self.spec.width))
        self.transformer = Transformer(self.spec)
        self.norm = nn.LayerNorm(self.spec.width, self.spec.eps)
        self.head = nn.Linear(self.spec.width, self.vocabulary)

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to ``[batch, vocabulary]``.

        The norm belongs to the head: places are read from what stands before it.
        """
        logits: Tensor = self.head(self.norm(hidden))
        return logits
