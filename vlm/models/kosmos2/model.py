"""Kosmos-2's half of the model contract that needs torch: an image is 64 vectors inside the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlm.checkpoint.config_reader import ConfigReader
from vlm.checkpoint.files import Checkpoint
from vlm.layers.attention import AttentionContext
from vlm.layers.padding import right_padded
from vlm.models.base import Prompts, TokenModel
from vlm.models.family import Family
from vlm.models.kosmos2.checks import checks
from vlm.models.kosmos2.language import Kosmos2Text
from vlm.models.kosmos2.processor import IMAGE_START, Kosmos2Processor
from vlm.models.kosmos2.synthetic import SIZES, write_files
from vlm.models.kosmos2.vision import Kosmos2Vision, LatentProjection
from vlm.models.kosmos2.weights import IGNORED, RULES
from vlm.models.processor import CacheSpec, Inputs
from vlm.types import Sampling

MAX_NEW_TOKENS = 128
"""``max_new_tokens`` in the model card's example."""


class Kosmos2(TokenModel):
    """transformers ``Kosmos2ForConditionalGeneration``; greedy by default."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """``config`` is the content of config.json."""
        super().__init__()
        reader = ConfigReader(config, "config.json")
        text = reader.section("text_config")
        self.vision = Kosmos2Vision(reader.section("vision_config"))
        self.text = Kosmos2Text(text)
        spec = self.text.spec
        self.image_positions = reader.integer("latent_query_num", 64)
        self.latents = LatentProjection(self.vision.width, spec.width, spec.heads, self.image_positions)
        self.cache = CacheSpec(
            layers=spec.layers,
            kv_heads=spec.heads,
            head_dim=spec.width // spec.heads,
            max_positions=self.text.max_positions,
        )
        self.eos_token_ids = frozenset({text.integer("eos_token_id", 2)})
        self.vocabulary = self.text.tokens.num_embeddings
        self.defaults = Sampling()

    def finish(self, checkpoint: Checkpoint) -> None:
        """Read the defaults from generation_config.json."""
        generation = ConfigReader(checkpoint.generation, "generation_config.json")
        self.defaults = Sampling(
            max_tokens=MAX_NEW_TOKENS, temperature=0.0, top_p=1.0, repetition_penalty=1.0,
            no_repeat_ngram_size=generation.integer("no_repeat_ngram_size", 0), forced_tokens=(),
            num_beams=1, length_penalty=1.0, early_stopping=False,
        )  # fmt: skip

    def encode_images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Images ``[3, side, side]`` to the scaled latents ``[positions, width]`` that stand for them."""
        latents: Tensor = self.latents(self.vision(torch.stack(tuple(pixels))))
        return (latents * self.text.scale).unbind()

    def embed(
        self, inputs: Sequence[Inputs], features: Sequence[Tensor], generated: Sequence[Sequence[int]]
    ) -> Prompts:
        """Embeddings of prompts, the latents at the images' positions, and of ids generated before preemption."""
        rows = [[*one.prompt_ids, *ids] for one, ids in zip(inputs, generated, strict=True)]
        embeddings = self.embed_tokens(right_padded(rows, self.device))
        embeddings[:, IMAGE_START : IMAGE_START + self.image_positions] = torch.stack(tuple(features))
        return Prompts(embeddings=embeddings, lengths=tuple(map(len, rows)))

    def forward(self, embeddings: Tensor, attention: AttentionContext) -> Tensor:
        """See :class:`~vlm.models.base.VisionLanguageModel`."""
        hidden: Tensor = self.text.transformer(embeddings, attention)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, vocabulary]``."""
        return self.text.logits(hidden)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Ids of any shape to embeddings of that shape plus ``[width]``, scaled."""
        return self.text.embed(tokens)


FAMILY = Family(
    model_types=("kosmos-2",),
    model=Kosmos2,
    processor=Kosmos2Processor.from_checkpoint,
    rules=RULES,
    write_files=write_files,
    sizes=SIZES,
    ignored=IGNORED,
    checks=checks,
)
