"""Decodes images in threads of this process: for callers that know where their images come from.

It starts no processes and copies no pixels, but a thread cannot be stopped, and shares the process's memory.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

from vlm.decoding.pool import STOPPING
from vlm.errors import EngineClosed, EngineFailure, VlmError
from vlm.models.processor import Preprocess, ProcessedImage
from vlm.types import EncodedImage

log = logging.getLogger(__name__)


class DecodeThreads:
    """Takes the place of :class:`~vlm.decoding.pool.DecodePool`. It has no deadline and no budget."""

    def __init__(self, preprocess: Preprocess, threads: int) -> None:
        """``preprocess`` decodes and resizes an image; ``threads`` is how many are decoded at once."""
        self._preprocess = preprocess
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._stopping = False

    def start(self) -> None:
        """Does nothing: threads start with the first images."""

    def stop(self) -> None:
        """End every image that has not begun with EngineFailure."""
        self._stopping = True
        self._threads.shutdown(wait=False)

    @property
    def healthy(self) -> bool:
        """Always."""
        return True

    def submit(self, image: EncodedImage, cost: int) -> Future[ProcessedImage]:  # noqa: ARG002  there is no budget
        """As :meth:`DecodePool.submit <vlm.decoding.pool.DecodePool.submit>`, but an image that has begun goes on."""
        try:
            return self._threads.submit(copy_context().run, self._decode, image)
        except RuntimeError:  # it was stopped after the request had come
            refused: Future[ProcessedImage] = Future()
            refused.set_exception(EngineClosed(STOPPING))
            return refused

    def _decode(self, image: EncodedImage) -> ProcessedImage:
        if self._stopping:
            raise EngineClosed(STOPPING)
        try:
            return self._preprocess(image)
        except VlmError:
            raise
        except Exception as error:
            log.exception("an image could not be decoded")
            raise EngineFailure("The image could not be prepared.") from error
