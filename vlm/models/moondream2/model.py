"""Moondream 2's half of the model contract that needs torch: an image is a prefix, an answer text or locations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vlm.layers.attention import AttentionContext
from vlm.layers.padding import right_padded
from vlm.layers.upload import upload
from vlm.models.base import Prompts, Row, Sample, Step, TokenModel
from vlm.models.family import Family
from vlm.models.moondream2.checks import checks
from vlm.models.moondream2.decoding import Chosen, LikeliestBins, StagedBatch
from vlm.models.moondream2.language import Moondream2Text
from vlm.models.moondream2.locations import LocationIds
from vlm.models.moondream2.processor import MAX_NEW_TOKENS, Moondream2Processor
from vlm.models.moondream2.region import Region
from vlm.models.moondream2.revisions import grid, read_config
from vlm.models.moondream2.stages import LOCATION_STAGES, TOKEN_STAGES, Stage, stage
from vlm.models.moondream2.synthetic import SIZES, write_files
from vlm.models.moondream2.vision import Moondream2Vision
from vlm.models.moondream2.vocabulary import Ids
from vlm.models.moondream2.weights import IGNORED, RULES, native_tensors
from vlm.models.processor import CacheSpec, Inputs
from vlm.types import Sampling


class Moondream2(TokenModel):
    """``HfMoondream`` of vikhyatk/moondream2, revision 2025-06-21 and older; greedy by default."""

    beam_search = False

    def __init__(self, config: Mapping[str, Any]) -> None:
        """``config`` is the content of config.json."""
        super().__init__()
        sections = read_config(config)
        self.ids = Ids.of(sections.section("tokenizer"))
        self.locations = LocationIds.of(sections)
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
        # The original samples at temperature 0.5; here decoding is greedy by default, as for every model.
        self.defaults = Sampling(
            max_tokens=MAX_NEW_TOKENS, temperature=0.0, top_p=1.0, repetition_penalty=1.0, no_repeat_ngram_size=0,
            forced_tokens=(), num_beams=1, length_penalty=1.0, early_stopping=False,
        )  # fmt: skip

    def encode_images(self, pixels: Sequence[Tensor]) -> Sequence[Tensor]:
        """Canvases ``[3, height, width]`` to vectors ``[grid * grid, width]``, which are the prefix of a prompt."""
        features: Sequence[Tensor] = self.vision(pixels)
        return features

    def embed_prefix(self, features: Sequence[Tensor]) -> Tensor:
        """The start of text, then the image: ``[batch, prefix positions, width]``."""
        start = self.text.tokens[self.ids.bos].expand(len(features), 1, -1)
        return torch.cat([start, torch.stack(tuple(features))], dim=1)

    def embed(
        self,
        inputs: Sequence[Inputs],
        features: Sequence[Tensor],  # noqa: ARG002  they are in the prefix
        generated: Sequence[Sequence[int]],
    ) -> Prompts:
        """Embeddings of the prompts, with the references of questions, and of ids generated before preemption."""
        rows = [[*one.prompt_ids, *ids] for one, ids in zip(inputs, generated, strict=True)]
        has_locations = any(token >= self.vocabulary for ids in generated for token in ids)
        embeddings = self._embed_ids(right_padded(rows, self.device), locations=has_locations)
        for placeholder, numbers in ((self.ids.coordinate, 1), (self.ids.size, 2)):
            self._put_values(embeddings, inputs, placeholder, numbers)
        return Prompts(embeddings=embeddings, lengths=tuple(map(len, rows)))

    def _put_values(self, embeddings: Tensor, inputs: Sequence[Inputs], placeholder: int, numbers: int) -> None:
        """Replace the embeddings of a ``placeholder`` by those of the values with so many ``numbers``, in order."""
        values = [value for one in inputs for value in one.values if len(value) == numbers]
        if not values:
            return
        indices = [
            (row, index)
            for row, one in enumerate(inputs)
            if one.values
            for index, token in enumerate(one.prompt_ids)
            if token == placeholder
        ]
        rows, positions = upload(indices, self.device).unbind(1)
        embeddings[rows, positions] = self.region.embed(upload(values, self.device))

    def forward(self, embeddings: Tensor, attention: AttentionContext) -> Tensor:
        """See :class:`~vlm.models.base.VisionLanguageModel`."""
        hidden: Tensor = self.text.transformer(embeddings, attention)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """``[batch, width]`` to float32 ``[batch, vocabulary]``."""
        return self.text.logits(hidden)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Ids of any shape, also those of locations, to embeddings of that shape plus ``[width]``."""
        return self._embed_ids(tokens, locations=True)

    def decode(self, hidden: Tensor, rows: Sequence[Row], sample: Sample) -> Step:
        """Choose the next id of each row by its stage: a sampled token, or the likeliest location."""
        stages = [stage(row.inputs, row.generated, self.ids.answer) for row in rows]
        batch = StagedBatch.of(stages, self.locations, self.ids, hidden.device)
        chosen = self._choose(hidden, batch, sample)
        has_locations = batch.any(*LOCATION_STAGES)
        return Step(chosen.ids, chosen.logprobs, self._embed_ids(chosen.ids, locations=has_locations))

    def _choose(self, hidden: Tensor, batch: StagedBatch, sample: Sample) -> Chosen:
        logits = self._token_logits(hidden, batch)
        batch.rule_out(logits)
        has_next = batch.has_next_object(logits) if batch.any(Stage.NEXT_OBJECT) else None
        sampled = sample(logits)  # may change the logits in place
        chosen = Chosen(sampled.tokens, sampled.logprobs)
        if batch.any(Stage.END_REASONING):
            chosen = batch.with_end_of_reasoning(chosen)
        if batch.any(*(LOCATION_STAGES - {Stage.SIZE})):
            coordinate = LikeliestBins.of(self.region.coordinate_logits(hidden))
            chosen = batch.with_coordinates(chosen, coordinate)
            if has_next is not None:
                chosen = batch.with_next_object(chosen, has_next, coordinate)
        if batch.any(Stage.SIZE):
            chosen = batch.with_sizes(chosen, LikeliestBins.of(self.region.size_logits(hidden)))
        return chosen

    def _token_logits(self, hidden: Tensor, batch: StagedBatch) -> Tensor:
        """float32 ``[batch, vocabulary]``; zeros if no row chooses a token, which saves the largest multiplication."""
        if batch.any(*TOKEN_STAGES):
            return self.logits(hidden)
        return torch.zeros(len(hidden), self.vocabulary, device=hidden.device)

    def _embed_ids(self, tokens: Tensor, *, locations: bool) -> Tensor:
        """Ids of any shape to ``[..., width]``; ``locations`` says whether there may be any among them."""
        if not locations:
            return F.embedding(tokens, self.text.tokens)
        text = F.embedding(tokens.clamp(max=self.vocabulary - 1), self.text.tokens)
        coordinates = self.region.embed_bins((tokens - self.locations.vocabulary).clamp(0, self.locations.bins - 1))
        sizes = self.region.embed_size_bins((tokens - self.locations.sizes).clamp(min=0))
        spatial = torch.where((tokens < self.locations.sizes)[..., None], coordinates, sizes)
        return torch.where((tokens < self.vocabulary)[..., None], text, spatial)


FAMILY = Family(
    model_types=("moondream1",),
    model=Moondream2,
    processor=Moondream2Processor.from_checkpoint,
    rules=RULES,
    write_files=write_files,
    sizes=SIZES,
    ignored=IGNORED,
    native_tensors=native_tensors,
    checks=checks,
)
