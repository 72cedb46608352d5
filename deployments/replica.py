"""One replica of a model: a process that owns one engine.

Owns the engine's life and the pace of its chunks; what Ray needs to know of it is said in ``deployments.app``. Knows
nothing of Ray but the names of the methods that Serve calls, nothing of HTTP, and no model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from deployments.config import ModelArgs
from deployments.pacing import paced
from vlm.errors import EngineFailure
from vlm.types import Chunk, Request

if TYPE_CHECKING:
    from vlm.engine.config import EngineStats
    from vlm.engine.engine import Engine

log = logging.getLogger("ray.serve")  # the logger that Serve sets up in every replica: files, and the starter's console

CHUNK_EVERY_S = 0.025


class Replica:
    """A model's engine behind a Serve handle."""

    def __init__(self, args: ModelArgs) -> None:
        """Load the checkpoint and start the engine: Serve sends requests once this returns.

        Raises:
            CheckpointError: The checkpoint cannot be loaded; Serve reports its message as the application's.
        """
        logging.getLogger("vlm").parent = log
        began = time.perf_counter()
        self._engine = _engine(args)
        self._engine.start()
        log.info("%s is ready after %.1f s", args.checkpoint, time.perf_counter() - began)

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """The answer as it grows. Closing the generator frees all that the request holds."""
        async with aclosing(paced(self._engine.generate(request), CHUNK_EVERY_S)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def stats(self) -> EngineStats:
        """What the engine holds at this moment."""
        return self._engine.stats()

    async def check_health(self) -> None:
        """Serve calls this every few seconds, and replaces the replica when it raises.

        Raises:
            EngineFailure: The device is broken.
        """
        if not self._engine.healthy:
            raise EngineFailure("The engine's device is broken.")

    def __del__(self) -> None:
        # Serve calls this itself, once, after the last request has drained.
        if hasattr(self, "_engine"):
            self._engine.stop()


def _engine(args: ModelArgs) -> Engine:
    import torch  # here, so that naming this class in a config does not wait for torch

    from vlm.engine.config import EngineConfig
    from vlm.engine.engine import Engine
    from vlm.loading import load

    if args.threads:
        torch.set_num_threads(args.threads)
    loaded = load(args.source, revision=args.revision, dtype=args.dtype, device=args.device, report=log.info)
    config = EngineConfig(
        max_batch=args.max_batch,
        max_waiting=args.max_waiting,
        max_prefill=args.max_prefill,
        cache_bytes=args.cache_bytes,
        encoder_cache_bytes=args.encoder_cache_bytes,
        processor_cache_bytes=args.processor_cache_bytes,
        prepare_threads=args.prepare_threads,
    )
    return Engine(loaded, config)
