"""Decode steps as CUDA graphs: what a step launches is recorded once for its shape, and later started in one call.

On a GPU, a decode step launches hundreds of small kernels, and Python takes several times as long to launch them as the
device takes to run them. A recording can be replayed for any step of the same shape, because the step's numbers are in
buffers that stay where they are. To have few shapes, steps are padded with rows that write to block 0, and with blocks
that the mask hides::

    the step        11 rows of at most 9 blocks
    its recording   12 rows of 10 blocks
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from vlm.engine.blocks import BLOCK_SIZE, blocks_for
from vlm.engine.kv_cache import DecodeContext, DecodeShape, KVCache, sharing
from vlm.layers.attention import AttentionContext

log = logging.getLogger(__name__)

MAX_GRAPHS = 128
"""Maximum number of recordings, which bounds their memory; the least recently used are dropped first."""

STEPS_BEFORE_RECORDING = 2
"""How often a shape must have come before it is recorded, which takes about as long as three steps without one."""

CROSS_POSITIONS = 64
"""If slots have different numbers of cross-attention positions, they are padded to a multiple of this."""

RECORDING_ERRORS = (2, *range(900, 909))
"""CUDA's codes for memory that is short (``cudaErrorMemoryAllocation``), and for what cannot be recorded
(``cudaErrorStreamCapture...``): the device works on after these."""

Forward = Callable[[Tensor, AttentionContext], Tensor]


@dataclass(frozen=True, slots=True)
class Step:
    """A decode step: each row's blocks, new position and slot, as in :meth:`KVCache.decode`."""

    tables: Sequence[Sequence[int]]
    positions: Sequence[int]
    slots: Sequence[int]


@dataclass(frozen=True, slots=True)
class Recording:
    """What starts a recorded run again, and its result, which is at the same address each time."""

    replay: Callable[[], object]
    result: Tensor


class Recorder(Protocol):
    """Records what a function launches."""

    def __call__(self, run: Callable[[], Tensor]) -> Recording:
        """``run`` reads and writes only memory that stays where it is."""
        ...


class CudaRecorder:
    """Records CUDA graphs, which share their memory: only one runs at a time, and nobody reads an earlier result."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensor]) -> Recording:
        """Run once, so that libraries have their workspaces, and record a second run."""
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                run()
                result = self._captured(graph, run)
        finally:  # also on an error, after which the step is run on the current stream and writes the same memory
            current.wait_stream(self._stream)
        return Recording(graph.replay, result)

    def _captured(self, graph: torch.cuda.CUDAGraph, run: Callable[[], Tensor]) -> Tensor:
        graph.capture_begin(pool=self._memory, capture_error_mode="thread_local")
        try:
            return run()
        finally:
            graph.capture_end()


class DecodeGraphs:
    """Runs decode steps, those of a frequent shape by replaying a recording."""

    def __init__(self, forward: Forward, cache: KVCache, record: Recorder) -> None:
        """``forward`` is the model's."""
        self._forward = forward
        self._cache = cache
        self._record: Recorder | None = record
        self._seen: Counter[DecodeShape] = Counter()
        self._recordings: OrderedDict[DecodeShape, Recording] = OrderedDict()

    def hidden(self, embeddings: Tensor, step: Step) -> Tensor:
        """Hidden states ``[rows, 1, width]`` of a step; they are valid until the next one.

        Args:
            embeddings: ``[rows, 1, width]`` for as many rows as the KV cache has; always the same memory.
            step: What to compute.
        """
        rows = len(step.tables)
        exact = self._cache.decode_shape(step.positions, step.slots)
        if self._record is None or exact.beams is None:
            return self._forward(embeddings[:rows], self._cache.decode(step.tables, step.positions, step.slots))
        shape = padded(exact, self._cache)
        self._cache.upload(shape, step.tables, step.positions)
        return self._run(embeddings[: shape.rows], shape)[:rows]

    def _run(self, embeddings: Tensor, shape: DecodeShape) -> Tensor:
        recording = self._recordings.get(shape)
        if recording is None:
            recording = self._recorded(embeddings, shape)
        if recording is None:
            return self._forward(embeddings, self._context(shape))
        self._recordings.move_to_end(shape)
        recording.replay()
        return recording.result

    def _recorded(self, embeddings: Tensor, shape: DecodeShape) -> Recording | None:
        """A new recording, or None if the shape has not come often enough."""
        self._seen[shape] += 1
        if self._record is None or self._seen[shape] <= STEPS_BEFORE_RECORDING:
            return None
        try:
            recording = self._record(lambda: self._forward(embeddings, self._context(shape)))
        except RuntimeError as error:
            if isinstance(error, torch.AcceleratorError) and not _is_of_recording(error):
                raise  # the device is broken
            log.exception("decode steps cannot be recorded as CUDA graphs, and will be slower from now on")
            self._record = None
            self._recordings.clear()  # with their memory, which may be what was short
            return None
        if len(self._recordings) == MAX_GRAPHS:
            dropped, _ = self._recordings.popitem(last=False)
            del self._seen[dropped]
        self._recordings[shape] = recording
        return recording

    def _context(self, shape: DecodeShape) -> DecodeContext:
        return DecodeContext(self._cache, shape, sharing(shape.beams or 1))


def _is_of_recording(error: torch.AcceleratorError) -> bool:
    return getattr(error, "error_code", None) in RECORDING_ERRORS  # set by torch, though its types do not say so


def padded(exact: DecodeShape, cache: KVCache) -> DecodeShape:
    """The shape whose recording serves a step of shape ``exact``, whose slots have the same number of beams."""
    beams, spec, plan = exact.beams or 1, cache.spec, cache.plan
    groups = -(-exact.rows // beams)
    room = min(plan.rows // beams, plan.slots if spec.cross_positions else plan.rows)
    groups = max(groups, min(_rounded_up(groups, between=1), room))
    blocks = min(_rounded_up(exact.blocks, between=3), blocks_for(spec.max_positions))
    slots = groups if exact.slots else 0
    shape = replace(exact, rows=groups * beams, positions=blocks * BLOCK_SIZE, masked=True, slots=slots)
    if not exact.cross_masked:
        return shape
    positions = -(-exact.cross_positions // CROSS_POSITIONS) * CROSS_POSITIONS
    return replace(shape, cross_positions=min(positions, spec.cross_positions))


def _rounded_up(count: int, between: int) -> int:
    """The least number that is not below ``count`` of these: powers of two, and ``between`` others in each interval."""
    power = 1 << max(0, count - 1).bit_length()
    step = max(1, power // (2 * (between + 1)))
    return -(-count // step) * step
