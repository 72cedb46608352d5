"""Prepares requests without making anybody wait: neither the event loop of their clients, nor a thread for an image.

A request takes this way, on which it changes threads no more often than it must::

    event loop    prepared but for its image's pixels, if that is quick     else a worker thread does it
    decoder       its image is decoded, unless it is kept                   see vlm/decoding
    event loop    joined with the pixels
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial

from vlm.decoding.pool import STOPPING, DecodePool
from vlm.decoding.threads import DecodeThreads
from vlm.engine.config import EngineConfig
from vlm.engine.prepare import Draft, Preparer, is_quick
from vlm.engine.processor_cache import ProcessorCache
from vlm.engine.sequence import Sequence
from vlm.errors import EngineClosed, InvalidImage
from vlm.models.processor import Processor
from vlm.types import Request


class Intake:
    """Worker threads, and the way of a request from its event loop to a sequence. Every event loop may use it."""

    def __init__(
        self, preparer: Preparer, images: ProcessorCache, decoder: DecodePool | DecodeThreads, threads: int
    ) -> None:
        """Threads start with the first requests that need them.

        Args:
            preparer: Prepares a request.
            images: Recent images, the same as the preparer's.
            decoder: Decodes the others.
            threads: Number of worker threads.
        """
        self._preparer = preparer
        self._images = images
        self._decoder = decoder
        self._stopping = False
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="prepare")

    def stop(self) -> None:
        """End all requests that wait for a worker thread with EngineClosed; one that is being prepared goes on."""
        self._stopping = True
        self._workers.shutdown(wait=False)

    async def prepared(self, request: Request, generations: int = 1) -> Sequence:
        """A request as a sequence.

        Args:
            request: Asks for one thing.
            generations: How many are prepared at the same time, because a client has asked for them together.

        Raises:
            VlmError: As :meth:`Preparer.draft <vlm.engine.prepare.Preparer.draft>`, or its image cannot be decoded.
        """
        draft = await self._draft(request, generations)
        if draft.cost is None:
            return draft.finished()
        decode = partial(self._decoder.submit, request.encoded or b"", draft.cost)
        return draft.finished(await self._images.get(draft.key, decode))

    async def _draft(self, request: Request, generations: int) -> Draft:
        if is_quick(request, generations):
            try:
                return self._preparer.draft(request, few_parts=True)
            except InvalidImage:  # perhaps only because it has many parts, for which the event loop is not to wait
                pass
        try:
            drafting = self._workers.submit(copy_context().run, self._draft_in_thread, request)
        except RuntimeError as error:  # the threads have been stopped
            raise EngineClosed(STOPPING) from error
        return await asyncio.wrap_future(drafting)

    def _draft_in_thread(self, request: Request) -> Draft:
        if self._stopping:  # a long queue of requests is not to outlive the engine
            raise EngineClosed(STOPPING)
        return self._preparer.draft(request)


def decoder_of(processor: Processor, config: EngineConfig) -> DecodePool | DecodeThreads:
    """What decodes images as the settings ask for."""
    if not config.decode_processes:
        return DecodeThreads(processor.preprocess, config.prepare_threads)
    return DecodePool(
        processor.preprocess, config.decode_processes, config.decode_timeout_s, config.decode_memory_bytes
    )
