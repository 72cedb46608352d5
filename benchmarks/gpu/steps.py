"""The engine's inner parts alone: a decode step at several batch sizes, and the vision encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.models import never_ending
from benchmarks.gpu.records import Scale, peak_memory_gib, peak_reserved_gib, seconds, synchronize, write
from vlm.engine.blocks import CachePlan
from vlm.engine.core import Core
from vlm.engine.prepare import Preparer
from vlm.engine.processor_cache import ProcessorCache
from vlm.image.sample import sample_image
from vlm.models.base import LoadedModel, normalised, pixel_table
from vlm.types import Request, Sampling

CACHE_BYTES = 8 * 2**30
BEAMS = 3
PROFILED_STEPS = 3
_LISTED = 12
_LAUNCHES = {"cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch"}


def measure_decode(loaded: LoadedModel, scale: Scale, traces: Path | None) -> None:
    """Write what a decode step takes at each batch size, greedy and with beams."""
    never_ending(loaded)
    for beams in (1, BEAMS) if loaded.model.beam_search else (1,):
        for rows in scale.rows:
            core = _running(loaded, rows, beams, scale)
            host_ms = _host_ms(core, loaded.model.device, scale.steps)
            trace = traces and traces / f"{loaded.family}-decode-{rows}x{beams}.json.gz"
            write(
                "decode", family=loaded.family, dtype=str(loaded.model.dtype), rows=rows, beams=beams,
                step_ms=host_ms, **_profiled(core.step, loaded.model.device, trace if rows == scale.rows[-1] else None),
                peak_gib=peak_memory_gib(loaded.model.device), reserved_gib=peak_reserved_gib(loaded.model.device),
            )  # fmt: skip


def _running(loaded: LoadedModel, rows: int, beams: int, scale: Scale) -> Core:
    """A core in which ``rows`` sequences of the same request have been prefilled, after it has answered as many.

    So everything has been seen that is prepared when it is first seen, CUDA graphs above all.
    """
    model = loaded.model
    budget = CACHE_BYTES if model.device.type == "cuda" else 2**28
    plan = CachePlan.fit(model.cache, model.dtype.itemsize, budget, rows, beams)
    core = Core(loaded, plan, max_prefill=plan.slots)
    tokens = scale.steps + PROFILED_STEPS + 8
    sampling = Sampling(max_tokens=tokens, num_beams=beams, early_stopping=False, length_penalty=1.0, temperature=0)
    preparer = Preparer(model, loaded.processor, core.scheduler.pool.total, ProcessorCache(0))
    request = Request(sample_image(0), sampling=sampling, stream=False)
    image = loaded.processor.preprocess(sample_image(0))
    for warm_up in (True, False):
        for _ in range(rows):
            core.submit(preparer.draft(request).finished(image))
        while core.busy if warm_up else core.scheduler.waiting:
            core.step()
    return core


def _host_ms(core: Core, device: torch.device, steps: int) -> float:
    """Median wall-clock time of a step; each ends with a read-back of its tokens, so the device has finished it."""
    core.step()
    synchronize(device)
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        core.step()
        times.append(1000 * (time.perf_counter() - began))
    return median(times)


def _profiled(work: Callable[[], object], device: torch.device, trace: Path | None) -> dict[str, Any]:
    """Per run of ``work``: time that the device is busy, kernel launches, and the operations that take most of it."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        for _ in range(PROFILED_STEPS):
            work()
        synchronize(device)
    if trace is not None:
        trace.parent.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(trace))
    averages = profiler.key_averages()
    # An operation's time on the device is that of its kernels, which are events of their own: count them alone.
    events = [one for one in averages if cuda == (one.device_type.name == "CUDA") and not one.is_user_annotation]

    def cost(event: Any) -> float:
        return float(event.self_device_time_total if cuda else event.self_cpu_time_total)

    listed = sorted(events, key=cost, reverse=True)[:_LISTED]
    return {
        "device_ms": sum(map(cost, events)) / 1000 / PROFILED_STEPS if cuda else None,
        "launches": _calls(averages, _LAUNCHES) if cuda else None,
        "copies": _calls(averages, {"cudaMemcpyAsync"}) if cuda else None,
        "top": {one.key[:80]: round(cost(one) / 1000 / PROFILED_STEPS, 4) for one in listed},
    }


def _calls(events: Iterable[Any], names: Container[str]) -> float:
    """How often a step calls CUDA's functions of these names."""
    return float(sum(one.count for one in events if one.key in names)) / PROFILED_STEPS


@torch.inference_mode()
def measure_vision(loaded: LoadedModel, scale: Scale) -> None:
    """Write what one image takes: the upload and normalisation of its pixels, then its encoding at each batch size."""
    model = loaded.model
    image, table = loaded.processor.preprocess(sample_image(0)), pixel_table(model, loaded.processor)
    took = seconds(lambda: normalised(image.pixels, table), model.device)
    write("upload", family=loaded.family, dtype=str(model.dtype), megabytes=image.pixels.nbytes / 1e6, ms=1000 * took)
    pixels = normalised(image.pixels, table)
    for count in scale.vision:
        took = seconds(partial(model.encode_images, [pixels] * count), model.device)
        write("vision", family=loaded.family, dtype=str(model.dtype), images=count, ms_an_image=1000 * took / count)
