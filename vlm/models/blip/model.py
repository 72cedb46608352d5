"""BLIP's half of the model contract that needs torch: every decoder layer cross-attends to the image's vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlm.checkpoint.config_reader import ConfigReader
from vlm.layers.attention import AttentionContext
from vlm.layers.padding import right_padded
from vlm.models.base import Prompts, TokenModel
from vlm.models.blip.checks import checks
from vlm.models.blip.language import BlipText
from vlm.models.blip.processor import BlipProcessor
from vlm.models.blip.synthetic import SIZES, write_files
from vlm.models.blip.vision import BlipVision
from vlm.models.blip.weights import IGNORED, RULES
from vlm.models.family import Family
from vlm.models.processor import CacheSpec, Inputs
from vlm.types import Sampling

MAX_NEW_TOKENS = 100
"""Captions are one sentence; the default of transformers, 20 tokens with the prompt, would cut longer ones."""


class Blip(TokenModel):
    """transformers ``BlipForConditionalGeneration``; greedy by default, an answer ends at [SEP]."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """``config`` is the content of config.json."""
        super().__init__()
        reader = ConfigReader(config, "config.json")
        text = reader.section("text_config")
        self.vision = BlipVision(reader.section("vision_config"))
        self.text = BlipText(text)
        spec = self.text.spec
        self.cache = CacheSpec(
            layers=spec.layers,
            kv_heads=spec.heads,
            head_dim=spec.width // spec.heads,
            max_positions=self.text.max_positions,
            cross_positions=self.vision.tokens,
        )
        # transformers' generate() stops at sep_token_id; the eos id in published files has no effect.
        self.eos_token_ids = frozenset({text.integer("sep_token_id", 102)})
        self.vocabulary = self.text.tokens.num_embeddings
        self.defaults = Sampling(
            max_tokens=MAX_NEW_TOKENS, temperature=0.0, top_p=1.0, repetition_penalty=1.0, no_repeat_ngram_size=0,
            forced_tokens=(), num_beams=1, length_penalty=1.0, early_stopping=False,
        )  # fmt: skip

    def encode_images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Images ``[3, side, side]`` to the vectors ``[image positions, width]`` that the decoder cross-attends to."""
        features: Tensor = self.vision(torch.stack(tuple(pixels)))
        return features.unbind()

    def embed(
        self, inputs: Sequence[Inputs], features: Sequence[Tensor], generated: Sequence[Sequence[int]]
    ) -> Prompts:
        """Embeddings of the prompts and of ids generated before preemption; the images are the encoder output."""
        rows = [[*one.prompt_ids, *ids] for one, ids in zip(inputs, generated, strict=True)]
        return Prompts(
            embeddings=self.embed_tokens(right_padded(rows, self.device)),
            lengths=tuple(map(len, rows)),
            encoded=torch.stack(tuple(features)),
            encoded_lengths=(self.vision.tokens,) * len(rows),
        )

    def cross_keys_values(self, layer: int, encoded: Tensor) -> Tensor:
        """See :class:`~vlm.models.base.VisionLanguageModel`."""
        return self.text.transformer.cross_keys_values(layer, encoded)

    def forward(self, embeddings: Tensor, attention: AttentionContext) -> Tensor:
        """See :class:`~vlm.models.base.VisionLanguageModel`."""
        hidden: Tensor = self.text.transformer(embeddings, attention)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, vocabulary]``."""
        return self.text.logits(hidden)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Ids of any shape to embeddings of that shape plus ``[width]``."""
        embeddings: Tensor = self.text.tokens(tokens)
        return embeddings


FAMILY = Family(
    model_types=("blip",),
    model=Blip,
    processor=BlipProcessor.from_checkpoint,
    rules=RULES,
    write_files=write_files,
    sizes=SIZES,
    ignored=IGNORED,
    checks=checks,
)
