"""BLIP's text decoder: post-norm BERT with cross attention to the image (transformers ``BlipTextLMHeadModel``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers import head
from vlm.layers.modules import LayerNorm, Linear
from vlm.layers.transformer import ACTIVATIONS, Activation, LearnedPositions, TextTransformer, TransformerSpec, activate


def text_spec(config: ConfigReader) -> TransformerSpec:
    """The decoder's transformer from ``text_config``; defaults are those of ``BlipTextConfig``."""
    return TransformerSpec(
        layers=config.integer("num_hidden_layers", 12),
        width=config.integer("hidden_size", 768),
        heads=config.integer("num_attention_heads", 8),
        mlp_width=config.integer("intermediate_size", 3072),
        norm="post",
        activation=config.one_of("hidden_act", ACTIVATIONS, "gelu"),
        eps=config.number("layer_norm_eps", 1e-12),
        cross_width=config.integer("encoder_hidden_size", 768),
        embedding_norm=True,
    )


class BlipText(nn.Module):
    """Token embedding, decoder and head; the output matrix is the token embedding, with a bias of its own."""

    def __init__(self, config: ConfigReader) -> None:
        super().__init__()
        self.spec = text_spec(config)
        self.max_positions = config.integer("max_position_embeddings", 512)
        self.tokens = nn.Embedding(config.integer("vocab_size", 30524), self.spec.width)
        self.transformer = TextTransformer(self.spec, LearnedPositions(self.max_positions, self.spec.width))
        self.head = BlipHead(self.spec.width, self.spec.eps, self.spec.activation)
        self.output_bias = nn.Parameter(torch.empty(self.tokens.num_embeddings))

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, vocabulary]``."""
        return head.logits(self.head(hidden), self.tokens.weight, self.output_bias)


class BlipHead(nn.Module):
    """The transform before the output matrix (transformers ``BlipTextPredictionHeadTransform``)."""

    def __init__(self, width: int, eps: float, activation: Activation) -> None:
        super().__init__()
        self.dense = Linear(width, width)
        self.norm = LayerNorm(width, eps)
        self.activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` in and out."""
        out: Tensor = self.norm(activate(self.dense(hidden), self.activation))
        return out
