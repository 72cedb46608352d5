"""Kosmos-2's decoder: pre-norm, with a second norm inside each block (transformers ``Kosmos2TextForCausalLM``)."""

from __future__ import annotations

from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers import head
from vlm.layers.transformer import ACTIVATIONS, SinusoidalPositions, TextTransformer, TransformerSpec

POSITION_OFFSET = 2
"""fairseq numbers positions from the id of the padding token, 1, plus one."""


def text_spec(config: ConfigReader) -> TransformerSpec:
    """The decoder's transformer from ``text_config``; defaults are those of ``Kosmos2TextConfig``."""
    return TransformerSpec(
        layers=config.integer("layers", 24),
        width=config.integer("embed_dim", 2048),
        heads=config.integer("attention_heads", 32),
        mlp_width=config.integer("ffn_dim", 8192),
        norm="pre",
        activation=config.one_of("activation_function", ACTIVATIONS, "gelu"),
        eps=config.number("layer_norm_eps", 1e-5),
        final_norm=True,
        inner_norm=True,
    )


class Kosmos2Text(nn.Module):
    """Token embedding and decoder; the output matrix is the token embedding."""

    def __init__(self, config: ConfigReader) -> None:
        super().__init__()
        self.spec = text_spec(config)
        self.max_positions = config.integer("max_position_embeddings", 2048)
        self.scale = self.spec.width**0.5 if config.flag("scale_embedding", True) else 1.0
        self.tokens = nn.Embedding(config.integer("vocab_size", 65037), self.spec.width)
        positions = SinusoidalPositions(self.max_positions, self.spec.width, POSITION_OFFSET)
        self.transformer = TextTransformer(self.spec, positions)

    def embed(self, tokens: Tensor) -> Tensor:
        """Ids of any shape to embeddings of that shape plus ``[width]``, scaled."""
        rows: Tensor = self.tokens(tokens)
        return rows * self.scale

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, vocabulary]``."""
        return head.logits(hidden, self.tokens.weight)
