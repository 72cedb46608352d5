"""Requests a second of the whole engine, and of transformers' own classes, at the same size on the same device."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from benchmarks.gpu.models import never_ending
from benchmarks.gpu.records import Scale, log, synchronize, write
from vlm.checkpoint.files import Checkpoint
from vlm.engine.config import EngineConfig
from vlm.engine.engine import Engine
from vlm.image.sample import sample_image
from vlm.loading import families
from vlm.models.base import LoadedModel
from vlm.reference import native_prompt
from vlm.types import Completion, Request, Sampling

CACHE_BYTES = 8 * 2**30
BEAMS = 3
REFERENCE_REQUESTS = 8
WARM_UPS = 3
"""How often all requests are answered before they count: CUDA graphs are made of what has come several times."""
MAX_PREFILL = EngineConfig().max_prefill


def measure_engine(loaded: LoadedModel, scale: Scale) -> None:
    """Write requests a second at each concurrency, greedy, with beams, and about one image that is known."""
    never_ending(loaded)
    most = scale.concurrency[-1]
    for concurrency in scale.concurrency:
        _measure(loaded, scale, concurrency)
    _measure(loaded, scale, most, max_prefill=most)
    if loaded.model.beam_search:
        _measure(loaded, scale, most, beams=BEAMS)
    _measure(loaded, scale, most, one_image=True)


def _measure(
    loaded: LoadedModel,
    scale: Scale,
    concurrency: int,
    *,
    beams: int = 1,
    one_image: bool = False,
    max_prefill: int = MAX_PREFILL,
) -> None:
    requests = max(scale.requests, 2 * concurrency)
    images = [sample_image(0 if one_image else seed) for seed in range(requests)]
    sampling = Sampling(
        max_tokens=scale.tokens, num_beams=beams, early_stopping=False, length_penalty=1.0, temperature=0
    )
    config = EngineConfig(
        max_batch=concurrency,
        max_prefill=max_prefill,
        cache_bytes=CACHE_BYTES if loaded.model.device.type == "cuda" else 2**28,
        encoder_cache_bytes=2**28 if one_image else 0,
        processor_cache_bytes=8 * 2**30,  # decoding and resizing happen before the measurement: they are the CPU's part
    )
    loaded.model.defaults = replace(loaded.model.defaults, num_beams=beams)  # rows are planned for this many
    with Engine(loaded, config) as engine:
        asked = [Request(image, sampling=sampling, stream=False) for image in images]
        for _ in range(WARM_UPS):
            asyncio.run(_answer(engine, asked, concurrency))
        began = time.perf_counter()
        answers = asyncio.run(_answer(engine, asked, concurrency))
        took = time.perf_counter() - began
    write(
        "engine", family=loaded.family, dtype=str(loaded.model.dtype), concurrency=concurrency, beams=beams,
        one_image=one_image, max_prefill=max_prefill,
        requests_per_s=requests / took, tokens_per_s=requests * scale.tokens / took,
        first_token_ms=median(one.timings.first_token_ms for one in answers),
        total_ms=median(one.timings.total_ms for one in answers),
    )  # fmt: skip


async def _answer(engine: Engine, requests: Sequence[Request], concurrency: int) -> list[Completion]:
    gate = asyncio.Semaphore(concurrency)

    async def one(request: Request) -> Completion:
        async with gate:
            return await engine.complete(request)

    return await asyncio.gather(*map(one, requests))


def measure_reference(family: str, dtype: torch.dtype, device: torch.device, scale: Scale) -> None:
    """Write requests a second of transformers' ``generate``, one image at a time, with weights as it makes them up."""
    found = dict(families())[family]
    with TemporaryDirectory(prefix="gpu-bench-") as folder:
        found.write_files(Path(folder), found.sizes[scale.size])
        built = _reference(Checkpoint.open(folder), dtype, device)
        if built is None:
            log(f"{family}: transformers has no class for it")
            return
        processor, model = built
        prompt = native_prompt(found.processor(Checkpoint.open(folder)), sample_image(0))
    images = [sample_image(seed) for seed in range(REFERENCE_REQUESTS)]
    inputs = [_inputs(processor, image, prompt, device, dtype) for image in images]
    settings = {"max_new_tokens": scale.tokens, "min_new_tokens": scale.tokens, "num_beams": 1, "do_sample": False}
    with torch.inference_mode():
        model.generate(**inputs[0], **settings)
        synchronize(device)
        began = time.perf_counter()
        for one in inputs:
            model.generate(**one, **settings)
        synchronize(device)
    took = time.perf_counter() - began
    write("transformers", family=family, dtype=str(dtype), requests_per_s=len(images) / took)


def _reference(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any] | None:
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageTextToText, AutoProcessor, logging

    if checkpoint.model_type not in CONFIG_MAPPING:
        return None
    logging.set_verbosity_error()
    config = AutoConfig.from_pretrained(checkpoint.folder)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval()
    return AutoProcessor.from_pretrained(checkpoint.folder), model


def _inputs(processor: Any, image: bytes, prompt: str, device: torch.device, dtype: torch.dtype) -> Any:
    opened = Image.open(io.BytesIO(image)).convert("RGB")
    return processor(images=opened, text=prompt or None, return_tensors="pt").to(device, dtype)
