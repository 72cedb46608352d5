"""Runs a batch on the device: embeddings, forward, decode. Everything by row; nothing here decides who runs."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vlm.engine.blocks import CachePlan
from vlm.engine.image_cache import ImageCache
from vlm.engine.kv_cache import KVCache, Prompt
from vlm.engine.sampler import Sampler
from vlm.engine.scheduler import Move
from vlm.engine.sequence import Sequence
from vlm.models.base import Sampled, Step, VisionLanguageModel


@dataclass(frozen=True, slots=True)
class Chosen:
    """One row's new token; ``logprob`` is None where no row of the batch asked."""

    token: int
    logprob: float | None


class ModelRunner:
    """Owns the model and all device memory that a step touches."""

    def __init__(self, model: VisionLanguageModel, plan: CachePlan, image_cache_bytes: int) -> None:
        self.model = model
        self.images = ImageCache(image_cache_bytes)
        self._cache = KVCache(model.cache, plan, model.dtype, model.device)
        self._sampler = Sampler(plan.rows, model.cache.max_positions, model.device)
        self._next: Tensor | None = None  # [rows, 1, width]: what the next step reads; its width is known at the first
        self._rows = plan.rows

    @torch.inference_mode()
    def move(self, moves: Rows[Move]) -> None:
        """Follow the scheduler's moves, in order."""
        for move in moves:
            self._cache.move(move.source, move.target)
            self._sampler.move(move.source, move.target)
            if self._next is not None:
                self._next[move.target] = self._next[move.source]

    @torch.inference_mode()
    def prefill(self, sequences: Rows[Sequence]) -> list[Chosen]:
        """Encode pictures and prompts of consecutive new rows and choose each row's next token."""
        row = sequences[0].row
        assert row is not None
        inputs = [one.inputs for one in sequences]
        prompts = self.model.embed(inputs, self._features(sequences), [one.generated for one in sequences])
        cross = None if prompts.encoded is None else partial(self._cross_keys_values, prompts.encoded)
        tables = [one.blocks for one in sequences]
        context = self._cache.prefill(Prompt(row, tables, prompts.lengths, prompts.encoded_lengths), cross)
        for sequence in sequences:
            self._sampler.join(sequence)
        hidden = self.model.forward(prompts.embeddings, context)
        last = torch.tensor(prompts.lengths, device=hidden.device) - 1
        return self._finish(hidden[torch.arange(len(last), device=hidden.device), last], row, sequences)

    @torch.inference_mode()
    def decode(self, sequences: Rows[Sequence]) -> list[Chosen]:
        """Read each row's last token and choose the next; ``sequences`` are rows 0..n-1."""
        assert self._next is not None, "decode before any prefill"
        context = self._cache.decode([one.blocks for one in sequences], [one.length - 1 for one in sequences])
        hidden = self.model.forward(self._next[: len(sequences)], context)
        return self._finish(hidden[:, 0], 0, sequences)

    def _features(self, sequences: Rows[Sequence]) -> list[Tensor]:
        """What the model sees in each picture; only pictures that are new are encoded."""

        def encode(indices: Rows[int]) -> Rows[Tensor]:
            pictures = [sequences[index].inputs.pixels for index in indices]
            return self.model.see([torch.from_numpy(one) for one in pictures if one is not None])

        features, cached = self.images.features([one.image_key for one in sequences], encode)
        for sequence, was_there in zip(sequences, cached, strict=True):
            if sequence.image_cached is None:  # after a preemption its own encode is no news
                sequence.image_cached = was_there
        return features

    def _cross_keys_values(self, encoded: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        return self.model.cross_keys_values(layer, encoded)

    def _finish(self, hidden: Tensor, row: int, sequences: Rows[Sequence]) -> list[Chosen]:
        step = self.model.decode(hidden, sequences, partial(self._sample, sequences))
        self._keep(step, row)
        tokens: list[int] = step.tokens.tolist()
        logprobs: list[float | None] = [None] * len(tokens) if step.logprobs is None else step.logprobs.tolist()
        return [Chosen(token, logprob) for token, logprob in zip(tokens, logprobs, strict=True)]

    def _sample(self, sequences: Rows[Sequence], logits: Tensor) -> Sampled:
        return self._sampler.sample(logits, sequences)

    def _keep(self, step: Step, row: int) -> None:
        if self._next is None:
            self._next = step.embeddings.new_zeros(self._rows, 1, step.embeddings.shape[-1])
        self._next[row : row + len(step.embeddings), 0] = step.embeddings


def device_is_broken(error: Exception) -> bool:
    """True for an error after which the device answers nothing any more, so that the process must be replaced."""
    return isinstance(error, torch.AcceleratorError)
