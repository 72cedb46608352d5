"""One replica of a model: a process with one engine.

Starts and stops the engine and paces its chunks. The options that Serve gets for it are in ``deployments.app``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from deployments.config import ModelConfig
from deployments.engine_metrics import shown_by_ray
from deployments.gpu import gpu_fraction
from deployments.pacing import paced
from deployments.replica_traces import ReplicaTraces
from deployments.scaling_policy import report
from logs.lines import place_of, set_up
from logs.request_id import REQUEST_ID
from serve_args.identity import identity
from vlm.errors import EngineFailure, VlmError
from vlm.types import Chunk, ModelInfo, Request

if TYPE_CHECKING:
    from metrics.ray import RayMetrics
    from vlm.engine.config import EngineStats
    from vlm.engine.engine import Engine
    from vlm.engine.gpu import Admit
    from vlm.models.base import LoadedModel

log = logging.getLogger("ray.serve")  # the logger that Serve sets up in every replica: files, and the starter's console

CHUNK_EVERY_S = 0.04
"""Shorter than people notice, and longer than most decode steps: a chunk then carries several tokens."""


class Replica:
    """A model's engine behind a Serve handle."""

    def __init__(self, config: ModelConfig) -> None:
        """Load the checkpoint and start the engine; Serve sends requests once this returns.

        Raises:
            CheckpointError: The checkpoint cannot be loaded; Serve reports its message as the application's.
        """
        for ours in ("vlm", "metrics", "traces"):
            logging.getLogger(ours).parent = log
        set_up(log, config.log_format, identity)
        began = time.perf_counter()
        self._asked = 0
        self._metrics: RayMetrics | None = None
        self._traces = ReplicaTraces(identity)
        self._engine, self._info = _engine(self._load_model(config), config)
        self._engine.start()
        self._metrics = shown_by_ray(self._engine.stats)
        log.info("%s is ready after %.1f s", config.checkpoint, time.perf_counter() - began)

    def _load_model(self, config: ModelConfig) -> LoadedModel:
        """The model that the engine runs. Raises CheckpointError."""
        import torch  # here, so that naming this class in a config does not wait for torch

        from vlm.loading import load

        if config.threads:
            torch.set_num_threads(config.threads)
        return load(
            config.source,
            revision=config.revision,
            dtype=config.dtype,
            device=config.device,
            report=log.info,
            weights_cache=config.weights_cache,
            weights_cache_bytes=config.weights_cache_bytes,
            admit=_within_its_gpu(config),
        )

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """The answer as it grows. Closing the generator frees everything that the request holds.

        Every error is sent as the last chunk: Ray logs what is raised here at ERROR with its traceback and its text,
        which may quote the request, and the router answers it anyway. A failure of the engine gets one line in the log;
        mistakes of clients get none.
        """
        REQUEST_ID.set(request.request_id)
        self._asked += 1
        try:
            answer = self._traces.chunks(request, self._engine.generate(request))
            async with aclosing(paced(answer, CHUNK_EVERY_S)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except VlmError as error:
            yield _refusal(error)
        except Exception as error:  # noqa: BLE001  the last resort: Ray would write its text
            yield _refusal(_unexpected(error))

    async def answer(self, request: Request) -> Chunk:
        """The one chunk of an answer that does not stream, or of its error, as in :meth:`generate`."""
        REQUEST_ID.set(request.request_id)
        self._asked += 1
        try:
            return Chunk.whole(await self._traces.completion(request, self._engine.complete(request)))
        except VlmError as error:
            return _refusal(error)
        except Exception as error:  # noqa: BLE001  likewise
            return _refusal(_unexpected(error))

    async def describe(self) -> ModelInfo:
        """What this replica has loaded."""
        return self._info

    async def stats(self) -> EngineStats:
        """What the engine holds at this moment."""
        return self._engine.stats()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the autoscaling policy goes by; Serve asks for it where the deployment has one."""
        return report(self._engine.stats(), self._asked)

    async def check_health(self) -> None:
        """Serve calls this every few seconds, and replaces the replica when it raises.

        Raises:
            EngineFailure: The device is broken, or images can no longer be decoded.
        """
        if not self._engine.healthy:
            raise EngineFailure("The engine's device is broken, or its decoding processes are.")

    def __del__(self) -> None:
        # Serve calls this itself, once, after the last request has drained.
        if hasattr(self, "_engine"):
            if self._metrics is not None:
                self._metrics.stop()
            self._engine.stop()
            self._traces.stop()


def _unexpected(error: Exception) -> EngineFailure:
    log.error("unexpected %s\n%s", type(error).__name__, place_of(error))
    return EngineFailure("The model failed while it worked on this request.")


def _refusal(error: VlmError) -> Chunk:
    if isinstance(error, EngineFailure):
        log.error("a request failed: %s", error)
    return Chunk(error=error)


def _engine(loaded: LoadedModel, config: ModelConfig) -> tuple[Engine, ModelInfo]:
    from vlm.engine.engine import Engine
    from vlm.loading import info

    engine = Engine(loaded, config.engine)
    name = config.checkpoint  # not its path on this machine
    return engine, replace(info(loaded), checkpoint=name, slots=engine.slots, rows=engine.rows)


def _within_its_gpu(config: ModelConfig) -> Admit | None:
    """What refuses a model that does not fit into the part of a GPU that Ray has given to this replica, if it has."""
    from vlm.engine.gpu import within
    from vlm.loading import find_device

    fraction = gpu_fraction()
    if fraction is None or (device := find_device(config.device)).type != "cuda":
        return None
    return within(device, fraction, config.engine)
