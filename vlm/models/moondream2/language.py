"""Moondream 2's decoder: parallel blocks with rotary positions, as in Phi, and an output matrix of its own.

``text.py`` in the repository of vikhyatk/moondream2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers import head
from vlm.layers.modules import LayerNorm, Linear
from vlm.layers.rope import Rotary
from vlm.layers.transformer import Transformer, TransformerSpec


def text_spec(config: ConfigReader) -> TransformerSpec:
    """The decoder's transformer from config.json's ``text``; rotary positions apply to half of each head."""
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
    """Token embedding, decoder and output matrix."""

    def __init__(self, config: ConfigReader) -> None:
        super().__init__()
        self.spec = text_spec(config)
        self.max_positions = config.integer("max_context")
        self.vocabulary = config.integer("vocab_size")
        self.tokens = nn.Parameter(torch.empty(self.vocabulary, self.spec.width))
        self.transformer = Transformer(self.spec)
        self.norm = LayerNorm(self.spec.width, self.spec.eps)
        self.head = Linear(self.spec.width, self.vocabulary)

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, vocabulary]``.

        The norm is part of the head: coordinates and sizes are read from the hidden state before it.
        """
        return head.logits(self.norm(hidden), self.head.weight, self.head.bias)
