"""Checks that a checkpoint loads, computes finite numbers, and gives the tokens of transformers. Knows no model."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch

from vlm.checkpoint.files import Checkpoint
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.errors import EngineFailure
from vlm.image.sample import sample_image
from vlm.loading import find_device, load
from vlm.models.base import LoadedModel
from vlm.models.checks import Finding
from vlm.models.family import Family
from vlm.models.processor import Processor
from vlm.reference import SINCE, native_prompt, outdated, reference
from vlm.types import Completion, Request, Sampling

TOKENS = 16
_HEADROOM = 1.3  # memory needed, in sizes of the weights: also activations, the cache and the tensor being read
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where and how to run. Without a ``dtype`` it is the widest one that fits into memory."""

    device: str = "cpu"
    dtype: str | None = None
    compare: bool = False


def check_run(checkpoint: Checkpoint, family: Family, options: RunOptions) -> Iterator[Finding]:
    """Load the model, ask for the default task about one image, and compare the answer if ``compare`` is set."""
    parameters = sum(part.numel() for _, part in family.empty(checkpoint.config).named_parameters())
    device = find_device(options.device)
    dtype = options.dtype or _fitting(parameters, device)
    if dtype is None:
        needed = f"{parameters * 2 * _HEADROOM / 1e9:.1f} GB"
        yield Finding("run", "skipped", f"memory is short: bfloat16 needs {needed}; --dtype tries anyway")
        return
    loaded = load(checkpoint, dtype=dtype, device=str(device))
    image, how = sample_image(0), f"{dtype} on {device}"
    try:
        answer = _answer(loaded, image)
    except EngineFailure as error:  # the engine logs the details
        advice = (
            "Its weights may hold NaN." if dtype == "float32" else "If its output is not finite, try --dtype float32."
        )
        yield Finding("run", "FAILED", f"{how}: {error} {advice}")
        return
    speed = 1000 * len(answer.token_ids) / answer.timings.total_ms
    tokens = f"{len(answer.token_ids)} tokens at {speed:.0f} a second"
    yield Finding("run", "ok", f"{how}: {answer.text!r}, {tokens}, image included")
    if options.compare:
        yield _compared(checkpoint, loaded, image, answer.token_ids)
    else:
        yield Finding("transformers", "skipped", "--compare compares with its own generate")


def _fitting(parameters: int, device: torch.device) -> str | None:
    """float32 if it fits into memory, else bfloat16, else None."""
    free = _free_bytes(device)
    sizes = {"float32": 4, "bfloat16": 2}
    return next((name for name, size in sizes.items() if free is None or parameters * size * _HEADROOM < free), None)


def _free_bytes(device: torch.device) -> int | None:
    """Free memory of the device; None if it is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not _MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text("ascii").splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0]) if "MemAvailable" in lines else None


def _answer(loaded: LoadedModel, image: bytes) -> Completion:
    """The greedy answer to the default task. Since log-probabilities are asked for, logits that are not finite fail."""
    asked = Request(image, sampling=Sampling(max_tokens=TOKENS, temperature=0.0, num_beams=1, logprobs=True))
    with Engine(loaded, EngineConfig(max_batch=1)) as engine:
        return asyncio.run(engine.complete(asked))


def _compared(checkpoint: Checkpoint, loaded: LoadedModel, image: bytes, ours: tuple[int, ...]) -> Finding:
    """Compare our first greedy tokens with transformers'.

    In a shorter dtype than float32, rounding decides between tokens of nearly equal probability, so that a difference
    proves nothing.
    """
    model = loaded.model
    prompt = native_prompt(loaded.processor, image)
    try:
        theirs = reference(checkpoint, prompt=prompt, tokens=TOKENS, dtype=model.dtype, device=str(model.device))(image)
    except (ImportError, OSError, ValueError, RuntimeError, TypeError, AttributeError, KeyError) as error:
        reason = textwrap.shorten(str(error), 160, placeholder=" ...")
        return Finding("transformers", "skipped", f"it cannot run this folder ({type(error).__name__}: {reason})")
    if ours == theirs:
        return Finding("transformers", "ok", f"its generate gives the same {len(ours)} tokens")
    parting = _parting(ours, theirs, loaded.processor)
    if model.dtype == torch.float32:
        return Finding("transformers", "FAILED", f"{parting}. {_advice()}")
    return Finding("transformers", "skipped", f"{parting}; --dtype float32 rules out rounding")


def _advice() -> str:
    old = outdated()
    if old is not None:
        return f"transformers {old} is installed, and answers of some models differ before {SINCE}: compare with that."
    return "If generation_config.json has wrong token ids or other settings, correct it."


def _parting(ours: tuple[int, ...], theirs: tuple[int, ...], processor: Processor) -> str:
    """How two answers differ, as text: their common beginning, and the first token of each after it."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
    common = processor.decode(ours[:same], special=True)
    here, there = (
        f"{processor.decode(ids[same : same + 1], special=True)!r} (id {ids[same]})"
        if same < len(ids)
        else "nothing more"
        for ids in (ours, theirs)
    )
    return f"the answers part after {same} equal tokens, {common!r}: next comes {here} here, {there} in transformers"
