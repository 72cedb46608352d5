"""Moondream 2 as the engine sees it: an image stands before the prompt, and an answer may be words or places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vlm.layers.attention import AttentionContext
from vlm.layers.padding import right_padded
from vlm.models.base import Prompts, Row, Sample, Step, TokenModel
from vlm.models.family import Family
from vlm.models.moondream2.checks import checks
from vlm.models.moondream2.config import grid, settings
from vlm.models.moondream2.decoding import Likeliest, Rows, Written
from vlm.models.moondream2.language import Moondream2Text
from vlm.models.moondream2.locations import PlaceIds
from vlm.models.moondream2.processor import MAX_NEW_TOKENS, Moondream2Processor
from vlm.models.moondream2.region import Region
from vlm.models.moondream2.stages import CHOOSING, PLACING, Stage, stage
from vlm.models.moondream2.synthetic import SIZES, write_files
from vlm.models.moondream2.vision import Moondream2Vision
from vlm.models.moondream2.vocabulary import Ids
from vlm.models.moondream2.weights import IGNORED, RULES, published
from vlm.models.processor import CacheSpec, Inputs
from vlm.types import Sampling


class Moondream2(TokenModel):
    """vikhyatk/moondream2 of 2025-06-21; greedy."""

    beam_search = False

    def __init__(self, config: Mapping[str, Any]) -> None:
        """``config`` is the content of config.json."""
        super().__init__()
        sections = settings(config)
        self.ids = Ids.of(sections.section("tokenizer"))
        self.places = PlaceIds.of(sections)
        self.vision = Moondream2Vision(sections.section("vision"))
        self.text = Moondream2Text(sections.section("text"))
        self.region = Region(sections.section("region"))
        spec = self.text.spec
        self.cache = CacheSpec(
            layers=spec.layers,
            kv_heads=spec.kv_heads or spec.heads,
            head_dim=spec.width // spec.heads,
            max_positions=self.text.max_positions,
            prefix_positions=1 + grid(sections.section("vision")) ** 2,
        )
        self.eos_token_ids = frozenset({self.ids.eos})
        self.vocabulary = self.text.vocabulary
        # The original draws at temperature 0.5; here the likeliest answer is the default, as for every model.
        self.defaults = Sampling(
            max_tokens=MAX_NEW_TOKENS, temperature=0.0, top_p=1.0, repetition_penalty=1.0, no_repeat_ngram_size=0,
            forced_tokens=(), num_beams=1, length_penalty=1.0, early_stopping=False,
        )  # fmt: skip

    def encode_images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Canvases to the vectors that stand before the prompt for them."""
        features: Sequence[Tensor] = self.vision([one.to(self.device, self.dtype) for one in pixels])
        return features

    def embed_prefix(self, features: Sequence[Tensor]) -> Tensor:
        """The first mark, then the image, ``[batch, prefix positions, width]``."""
        start = self.text.tokens[self.ids.bos].expand(len(features), 1, -1)
        return torch.cat([start, torch.stack(tuple(features))], dim=1)

    def embed(
        self,
        inputs: Sequence[Inputs],
        features: Sequence[Tensor],  # noqa: ARG002  they stand in the prefix
        generated: Sequence[Sequence[int]],
    ) -> Prompts:
        """Prompt ids (and what a preempted sequence had) to embeddings, with the places that a question is about."""
        rows = [[*one.prompt_ids, *ids] for one, ids in zip(inputs, generated, strict=True)]
        spoken = any(token >= self.vocabulary for ids in generated for token in ids)
        embeddings = self._embed_ids(right_padded(rows, self.device), places=spoken)
        for mark, numbers in ((self.ids.coordinate, 1), (self.ids.size, 2)):
            self._put_values(embeddings, inputs, mark, numbers)
        return Prompts(embeddings=embeddings, lengths=tuple(map(len, rows)))

    def _put_values(self, embeddings: Tensor, inputs: Sequence[Inputs], mark: int, numbers: int) -> None:
        """Put the values of so many numbers where their ``mark`` stands in a prompt."""
        values = [value for one in inputs for value in one.values if len(value) == numbers]
        if not values:
            return
        asked = [(row, one) for row, one in enumerate(inputs) if one.values]
        places = [(row, place) for row, one in asked for place, token in enumerate(one.prompt_ids) if token == mark]
        rows, where = torch.tensor(places, device=self.device).unbind(1)
        embeddings[rows, where] = self.region.embed(torch.tensor(values, device=self.device))

    def forward(self, embeddings: Tensor, attention: AttentionContext) -> Tensor:
        """See :class:`~vlm.models.base.VisionLanguageModel`."""
        hidden: Tensor = self.text.transformer(embeddings, attention)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to ``[batch, vocabulary]``."""
        return self.text.logits(hidden)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Ids, also those of places, to vectors."""
        return self._embed_ids(tokens, places=True)

    def decode(self, hidden: Tensor, rows: Sequence[Row], sample: Sample) -> Step:
        """Each row's next id by the stage that it is at: a sampled token, or the likeliest place."""
        stages = [stage(row.inputs, row.generated, self.ids.answer) for row in rows]
        batch = Rows.of(stages, self.places, self.ids, hidden.device)
        written = self._written(hidden, batch, sample)
        return Step(written.ids, written.logprobs, self._embed_ids(written.ids, places=batch.any(*PLACING)))

    def _written(self, hidden: Tensor, batch: Rows, sample: Sample) -> Written:
        logits = self._word_logits(hidden, batch)
        batch.rule_out(logits)
        further = batch.further(logits) if batch.any(Stage.NEXT_OBJECT) else None
        sampled = sample(logits)  # which may change them
        written = Written(sampled.tokens, sampled.logprobs)
        if batch.any(Stage.ENOUGH):
            written = batch.enough(written)
        if batch.any(*(PLACING - {Stage.SIZE})):
            spot = Likeliest.of(self.region.coordinate_logits(hidden))
            written = batch.placed(written, spot)
            if further is not None:
                written = batch.begun(written, further, spot)
        if batch.any(Stage.SIZE):
            written = batch.sized(written, Likeliest.of(self.region.size_logits(hidden)))
        return written

    def _word_logits(self, hidden: Tensor, batch: Rows) -> Tensor:
        """float32; zeros where no row chooses a word, which spares the largest matrix."""
        if batch.any(*CHOOSING):
            return self.logits(hidden).float()
        return torch.zeros(len(hidden), self.vocabulary, device=hidden.device)

    def _embed_ids(self, tokens: Tensor, *, places: bool) -> Tensor:
        """Ids of any shape to ``[..., width]``; ``places``: whether there may be any among them."""
        if not places:
            return F.embedding(tokens, self.text.tokens)
        words = F.embedding(tokens.clamp(max=self.vocabulary - 1), self.text.tokens)
        coordinates = self.region.embed_bins((tokens - self.places.words).clamp(0, self.places.bins - 1))
        sizes = self.region.embed_size_bins((tokens - self.places.sizes).clamp(min=0))
        spatial = torch.where((tokens < self.places.sizes)[..., None], coordinates, sizes)
        return torch.where((tokens < self.vocabulary)[..., None], words, spatial)


FAMILY = Family(
    model_types=("moondream1",),
    model=Moondream2,
    processor=Moondream2Processor.from_checkpoint,
    rules=RULES,
    write_files=write_files,
    sizes=SIZES,
    ignored=IGNORED,
    native_tensors=published,
    checks=checks,
)
