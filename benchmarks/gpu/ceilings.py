"""What the device can do at best: the ceilings that the engine's numbers are held against."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu.records import Scale, seconds, write


def measure(device: torch.device, scale: Scale) -> None:
    """Write the rates of a copy within the device, of one to it, and of a matrix product in each dtype."""
    count, side = scale.elements
    source = torch.empty(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    write("ceiling", what="copy", gb_per_s=2 * count / seconds(lambda: target.copy_(source), device) / 1e9)
    for pinned in (False, True) if device.type == "cuda" else (False,):
        host = torch.empty(min(count, 2**26), dtype=torch.uint8, pin_memory=pinned)
        part = target[: len(host)]
        rate = len(host) / seconds(partial(part.copy_, host), device) / 1e9
        write("ceiling", what="upload", pinned=pinned, gb_per_s=rate)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        matrix = torch.randn(side, side, dtype=dtype, device=device)
        took = seconds(partial(torch.matmul, matrix, matrix), device)
        write("ceiling", what="matrix product", dtype=str(dtype), tflop_per_s=2 * side**3 / took / 1e12)
