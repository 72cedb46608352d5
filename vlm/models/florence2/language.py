"""Florence-2's language model: BART, an encoder and a decoder over one token matrix (transformers ``BartModel``)."""

from __future__ import annotations

from torch import Tensor, nn

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers import head
from vlm.layers.attention import Bidirectional
from vlm.layers.transformer import ACTIVATIONS, LearnedPositions, TextTransformer, TransformerSpec

_POSITION_OFFSET = 2  # the first two rows of BART's position table are unused


def text_spec(config: ConfigReader, part: str) -> TransformerSpec:
    """The transformer of ``part`` ("encoder" or "decoder") from ``text_config``."""
    width = config.integer("d_model", 1024)
    return TransformerSpec(
        layers=config.integer(f"{part}_layers", 12),
        width=width,
        heads=config.integer(f"{part}_attention_heads", 16),
        mlp_width=config.integer(f"{part}_ffn_dim", 4096),
        norm="post",
        activation=config.one_of("activation_function", ACTIVATIONS, "gelu"),
        cross_width=width if part == "decoder" else None,
        embedding_norm=True,
    )


class Bart(nn.Module):
    """Encoder and decoder, which share the token embedding; it is also the output matrix."""

    def __init__(self, config: ConfigReader) -> None:
        super().__init__()
        encoder, decoder = text_spec(config, "encoder"), text_spec(config, "decoder")
        self.max_positions = config.integer("max_position_embeddings", 1024)
        self.tokens = nn.Embedding(config.integer("vocab_size"), decoder.width)
        self.scale = decoder.width**0.5 if config.flag("scale_embedding", False) else 1.0
        self.encoder = TextTransformer(encoder, self._positions(encoder.width))
        self.decoder = TextTransformer(decoder, self._positions(decoder.width))

    def _positions(self, width: int) -> LearnedPositions:
        return LearnedPositions(self.max_positions, width, _POSITION_OFFSET)

    def embed(self, tokens: Tensor) -> Tensor:
        """Ids of any shape to embeddings of that shape plus ``[width]``."""
        embeddings: Tensor = self.tokens(tokens) * self.scale
        return embeddings

    def encode(self, embeddings: Tensor, lengths: Tensor | None) -> Tensor:
        """Embeddings to encoder output, both ``[batch, positions, width]``; ``lengths`` int64 ``[batch]`` if padded."""
        context = Bidirectional(embeddings.shape[1], lengths, embeddings.device)
        encoded: Tensor = self.encoder(embeddings, context)
        return encoded

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, vocabulary]``."""
        return head.logits(hidden, self.tokens.weight)
