"""Moondream 2 without the engine: one sequence at a time, keys and values concatenated, greedy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlm.checkpoint.files import Checkpoint
from vlm.checkpoint.weight_rules import load_weights
from vlm.layers.attention import Growing
from vlm.models.base import Sampled, normalised
from vlm.models.moondream2.model import FAMILY, Moondream2
from vlm.models.moondream2.processor import Moondream2Processor
from vlm.models.moondream2.tiling import pixel_table
from vlm.models.processor import Inputs

DATA = Path(__file__).parents[3] / "data" / "moondream2"
TABLE = torch.from_numpy(pixel_table())


def load(folder: Path) -> tuple[Moondream2, Moondream2Processor]:
    """A checkpoint in fp32 on the CPU."""
    checkpoint = Checkpoint.open(folder)
    with torch.device("meta"):
        model = Moondream2(checkpoint.config)
    model.to_empty(device="cpu")
    load_weights(model, FAMILY.native_tensors(checkpoint.tensors()), FAMILY.rules, FAMILY.ignored)
    return model.eval(), Moondream2Processor.from_checkpoint(checkpoint)


@cache
def golden() -> tuple[Moondream2, Moondream2Processor]:
    """The small model whose answers by the original code are in ``tests/data/moondream2``."""
    return load(DATA)


def cases() -> list[dict[str, Any]]:
    """What the original was asked, and its answers."""
    found: list[dict[str, Any]] = json.loads((DATA / "cases.json").read_text("utf-8"))
    return found


def golden_image(name: str) -> bytes:
    """One of the images, as a file."""
    return (DATA / "images" / f"{name}.png").read_bytes()


def greedy(logits: Tensor) -> Sampled:
    """The likeliest token, and its log-probability."""
    logprobs, tokens = torch.log_softmax(logits, dim=-1).max(dim=-1)
    logits.fill_(torch.nan)  # as a sampler may
    return Sampled(tokens, logprobs)


@dataclass(frozen=True)
class Alone:
    """The only row of a step."""

    inputs: Inputs
    generated: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@torch.inference_mode()
def features_of(model: Moondream2, inputs: Inputs) -> Tensor:
    """Features of the image, encoded in a batch of its own."""
    assert inputs.pixels is not None
    [features] = model.encode_images([normalised(inputs.pixels, TABLE)])
    return features


@torch.inference_mode()
def answer(
    model: Moondream2, inputs: Inputs, most: int, features: Tensor | None = None, written: Sequence[int] = ()
) -> Alone:
    """Write up to ``most`` ids, or as many as the task can use; ``written`` are there before."""
    row = Alone(inputs, [*written])
    most = most if inputs.limit is None else min(most, inputs.limit)
    context, hidden = prefilled(model, inputs, features, written)
    while len(row.generated) < most:
        step = model.decode(hidden, [row], greedy)
        assert step.logprobs is not None
        row.generated.append(int(step.tokens))
        row.logprobs.append(float(step.logprobs))
        if row.generated[-1] in model.eos_token_ids:
            break
        context.advance(1)
        hidden = model.forward(step.embeddings[:, None], context)[:, -1]
    return row


@torch.inference_mode()
def prefilled(
    model: Moondream2, inputs: Inputs, features: Tensor | None, written: Sequence[int] = ()
) -> tuple[Growing, Tensor]:
    """The image, then the prompt and what is written: the context, and the last hidden state ``[1, width]``."""
    context = Growing(prefix=0 if inputs.pixels is None else model.cache.prefix_positions)
    if inputs.pixels is not None:
        features = features_of(model, inputs) if features is None else features
        context.advance(model.cache.prefix_positions)
        model.forward(model.embed_prefix([features]), context)
    prompts = model.embed([inputs], [], [written])
    context.advance(prompts.lengths[0])
    return context, model.forward(prompts.embeddings, context)[:, -1]
