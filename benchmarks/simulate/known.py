"""The two fleets: miniatures on nodes of cores, as measured whole, and BLIP-large in its published size on H100s.

Of the second, the engine was measured on an H100 (docs/benchmarks.md, "On a GPU, later"), the router, the replica's
event loop and the decoding of images on the machine of the calibration. The whole has not been measured.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.simulate.costs import Costs, Limits
from benchmarks.simulate.fleets import Fleet
from benchmarks.simulate.system import Node

MODEL = "blip-large"
CORES = 16
ON_CORES = 8
"""Replicas on a node of 16 cores: a replica and what it needs beside take less than 2."""

GPU_STEP_S, GPU_ROW_S = 0.00118, 0.0000175
"""A decode step takes 1.2 ms with one row and 2.3 ms with 64."""
GPU_START_S, GPU_IMAGE_S = 0.016, 0.00135
"""The first token takes 17 ms at c = 1; with these, c = 64 gives 437 requests a second, and c = 8 about 105."""
GPU_TOKENS = 20


def on_cores(costs: Costs, core_hour: float) -> Fleet:
    """Miniatures, with the settings of serve_config.local.yaml."""
    return Fleet("cores", MODEL, costs, Limits(), Node(CORES, ON_CORES), CORES * core_hour)


def on_gpus(costs: Costs, gpu_hour: float) -> Fleet:
    """A replica with a GPU and its 16 cores, with the settings of serve_config.yaml."""
    on_gpu = replace(
        costs, device=True, tokens=GPU_TOKENS, step=GPU_STEP_S, step_row=GPU_ROW_S, prefill=GPU_START_S,
        prefill_each=GPU_IMAGE_S,
    )  # fmt: skip
    limits = Limits(max_batch=64, max_waiting=128, max_prefill=32, decode_processes=4, places_per_replica=64)
    return Fleet("H100", MODEL, on_gpu, limits, Node(CORES, 1), gpu_hour)
