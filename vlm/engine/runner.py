"""Runs a batch on the device: embeds, computes hidden states and chooses tokens, row by row as it is scheduled."""

from __future__ import annotations

import math
import time
from collections import abc
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from vlm.engine.beams import Continuation, Likeliest
from vlm.engine.blocks import CachePlan
from vlm.engine.cuda_graphs import CudaRecorder, DecodeGraphs
from vlm.engine.cuda_graphs import Step as DecodeStep
from vlm.engine.encoder_cache import EncoderCache
from vlm.engine.kv_cache import KVCache, Prompt
from vlm.engine.read_back import read_back
from vlm.engine.sampler import Sampler, SamplerOutput
from vlm.engine.scheduler import Batch, Copy, Decode, PrefixJob
from vlm.engine.sequence import Beam, Sequence
from vlm.layers.attention import AttentionContext
from vlm.layers.upload import upload
from vlm.models.base import LoadedModel, Prompts, Sampled, Step, normalised, pixel_table


@dataclass(frozen=True, slots=True)
class Chosen:
    """How a sequence continues.

    Attributes:
        token: The new token.
        logprob: Its raw log-probability; None if no sequence of the batch wants it.
        finite: Whether the logits of all the sequence's rows are finite.
        ranked: For a beam search, in place of ``token``: the best continuations of its beams, best first.
        likeliest: The likeliest tokens, if the sequence wants them and the model chose among them.
    """

    token: int
    logprob: float | None
    finite: bool = True
    ranked: tuple[Continuation, ...] = ()
    likeliest: Likeliest = ()


class ModelRunner:
    """Owns the model and all device memory that a step touches."""

    def __init__(self, loaded: LoadedModel, plan: CachePlan, encoder_cache_bytes: int) -> None:
        """Allocate the KV cache of ``plan``, and keep at most ``encoder_cache_bytes`` bytes of image features."""
        self.model = model = loaded.model
        self.images = EncoderCache(encoder_cache_bytes)
        self._cache = KVCache(model.cache, plan, model.dtype, model.device)
        self._pixel_table = pixel_table(model, loaded.processor)
        self._sampler = Sampler(model.device, model.eos_token_ids)
        self._next: Tensor | None = None  # [rows, 1, width], what the next step reads; allocated by the first
        self._rows = plan.rows
        self._graphs: DecodeGraphs | None = None
        if model.device.type == "cuda":
            # cuDNN's attention makes a plan for every new shape, which takes as long as many steps.
            torch.backends.cuda.enable_cudnn_sdp(False)
            self._graphs = DecodeGraphs(model.forward, self._cache, CudaRecorder(model.device))

    @torch.inference_mode()
    def prefill(self, batch: Batch) -> list[Chosen]:
        """Compute the prompts of the sequences that start, and choose how each continues."""
        sequences = batch.prefill
        if batch.prefixes:
            self._compute_prefixes(batch.prefixes)
        self._copy(batch.copies)
        prompts = self._embed(sequences)
        hidden = self.model.forward(prompts.embeddings, self._context(sequences, prompts))
        beams = [beam for sequence in sequences for beam in sequence.beams]
        # All beams of a sequence continue the same prompt: one (index of the sequence, last position) for each beam.
        ends = [(index, length - 1) for index, length in enumerate(prompts.lengths) for _ in sequences[index].beams]
        indices, last = upload(ends, hidden.device).unbind(1)
        return self._choose(hidden[indices, last], beams)

    @torch.inference_mode()
    def decode(self, work: Decode) -> list[Chosen]:
        """Read each beam's last token, and choose how its sequence continues."""
        assert self._next is not None, "decode before any prefill"
        self._follow(work)
        tables, positions = [beam.blocks for beam in work.beams], [beam.length - 1 for beam in work.beams]
        hidden = self._hidden(self._next, DecodeStep(tables, positions, work.slots))
        return self._choose(hidden[:, 0], work.beams)

    def _hidden(self, embeddings: Tensor, step: DecodeStep) -> Tensor:
        if self._graphs is not None:
            return self._graphs.hidden(embeddings, step)
        context = self._cache.decode(step.tables, step.positions, step.slots)
        return self.model.forward(embeddings[: len(step.tables)], context)

    def _follow(self, work: Decode) -> None:
        """Move slots, rows and blocks as the scheduler has moved them."""
        for move in work.moves:
            self._cache.move(move.source, move.target)
        changed = [row for row, source in enumerate(work.sources) if source != row]
        if changed and self._next is not None:
            sources, targets = upload([[work.sources[row] for row in changed], changed], self._next.device)
            self._next[targets] = self._next[sources]
        self._copy(work.copies)

    def _copy(self, copies: abc.Sequence[Copy]) -> None:
        if copies:
            self._cache.copy([one.source for one in copies], [one.target for one in copies])

    def _compute_prefixes(self, jobs: abc.Sequence[PrefixJob]) -> None:
        """Compute the keys and values of images that come before their prompts."""
        embeddings = self.model.embed_prefix(self._features([job.sequence for job in jobs]))
        tables, lengths = [job.prefix.blocks for job in jobs], [job.prefix.length for job in jobs]
        self.model.forward(embeddings, self._cache.prefill(Prompt(0, tables, lengths, causal=False)))

    def _embed(self, sequences: abc.Sequence[Sequence]) -> Prompts:
        # With a prefix, the image is already in the KV cache: the prompt does not need its features.
        features = [] if self.model.cache.prefix_positions else self._features(sequences)
        return self.model.embed([one.inputs for one in sequences], features, [one.generated for one in sequences])

    def _context(self, sequences: abc.Sequence[Sequence], prompts: Prompts) -> AttentionContext:
        slot = sequences[0].slot
        assert slot is not None
        tables, starts = [one.beams[0].blocks for one in sequences], [one.prefix for one in sequences]
        cross = None if prompts.encoded is None else partial(self._cross_keys_values, prompts.encoded)
        return self._cache.prefill(Prompt(slot, tables, prompts.lengths, prompts.encoded_lengths, starts), cross)

    def _features(self, sequences: abc.Sequence[Sequence]) -> list[Tensor]:
        """Features of each sequence's image; only images that are not cached are encoded."""

        def encode(indices: abc.Sequence[int]) -> abc.Sequence[Tensor]:
            images = [sequences[index].inputs.pixels for index in indices]
            began = time.perf_counter()
            found = self.model.encode_images([normalised(one, self._pixel_table) for one in images if one is not None])
            took_ms = 1000 * (time.perf_counter() - began)
            for index in indices:
                sequences[index].encode_ms = took_ms
            return found

        features, cached = self.images.features([one.image_key for one in sequences], encode)
        for sequence, was_there in zip(sequences, cached, strict=True):
            sequence.note_image(cached=was_there)
        return features

    def _cross_keys_values(self, encoded: Tensor, layer: int) -> Tensor:
        return self.model.cross_keys_values(layer, encoded)

    def _choose(self, hidden: Tensor, beams: abc.Sequence[Beam]) -> list[Chosen]:
        outputs: list[SamplerOutput] = []

        def sample(logits: Tensor) -> Sampled:
            outputs.append(self._sampler.sample(logits, beams))
            return outputs[0].sampled

        step = self.model.decode(hidden, beams, sample)
        self._keep(step, beams[0].row)
        return _chosen(step, outputs[0], beams)

    def _keep(self, step: Step, row: int) -> None:
        if self._next is None:
            self._next = step.embeddings.new_zeros(self._rows, 1, step.embeddings.shape[-1])
        self._next[row : row + len(step.embeddings), 0] = step.embeddings


def _chosen(step: Step, output: SamplerOutput, beams: abc.Sequence[Beam]) -> list[Chosen]:
    """How each sequence continues, in the order of their first beams."""
    searches = [one.parts for one in output.ranked]
    parts = [step.tokens, output.largest, step.logprobs, *_top_parts(step, output), *chain(*searches)]
    tokens, largest, chances, top_tokens, top_logprobs, taken, *lists = read_back(parts)
    finite = [*map(math.isfinite, largest)]
    logprobs: list[float | None] = [None] * len(tokens) if chances is None else chances
    if output.top is None and not searches:
        return [Chosen(*one) for one in zip(tokens, logprobs, finite, strict=True)]
    likeliest = {} if output.top is None else output.top.by_row(top_tokens, top_logprobs, taken)
    ranked = {
        row: tuple(_with_likeliest(found, row, likeliest) if likeliest else found)
        for one, own in zip(output.ranked, _regrouped(lists, searches), strict=True)
        for row, found in one.continuations(*own)
    }
    return [
        Chosen(
            token,
            logprob,
            all(finite[row : row + len(beam.sequence.beams)]),
            ranked.get(row, ()),
            likeliest.get(row, ()),
        )
        for row, (beam, token, logprob) in enumerate(zip(beams, tokens, logprobs, strict=True))
        if beam is beam.sequence.beams[0]
    ]


def _with_likeliest(
    found: abc.Iterable[Continuation], row: int, likeliest: dict[int, Likeliest]
) -> abc.Iterator[Continuation]:
    """Continuations of a search whose first beam is in ``row``, each with the likeliest tokens of its beam."""
    return (replace(one, likeliest=likeliest.get(row + one.parent, ())) for one in found)


def _top_parts(step: Step, output: SamplerOutput) -> tuple[Tensor | None, ...]:
    """The likeliest tokens, and in which rows the model has taken the token that was chosen among them."""
    if output.top is None:
        return None, None, None
    return output.top.tokens, output.top.logprobs, step.tokens == output.sampled.tokens


def _regrouped(flat: list[Any], groups: abc.Sequence[abc.Sequence[object]]) -> abc.Iterator[list[Any]]:
    """``flat`` cut into parts of the lengths of ``groups``."""
    rest = iter(flat)
    return (list(islice(rest, len(group))) for group in groups)


def device_is_broken(error: Exception) -> bool:
    """Whether the device fails every call after this error, so that the process must be replaced."""
    return isinstance(error, torch.AcceleratorError)


def not_finite(dtype: torch.dtype) -> str:
    """The message for logits that are NaN or infinite: in a narrow dtype they may overflow, in float32 they do not."""
    name = str(dtype).removeprefix("torch.")
    advice = {
        torch.float16: "a wider dtype (bfloat16 or float32) may help",
        torch.bfloat16: "a wider dtype (float32) may help",
    }.get(dtype, "check the checkpoint's weights with `python -m vlm.verify`")
    return f"The model's output on this request is not finite in {name}: {advice}."
