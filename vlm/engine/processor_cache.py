"""Recently preprocessed images: several questions about one, at once or one after the other, decode it once.

The clients of all event loops and the threads that prepare requests share it. The key is a hash of the encoded bytes.
Pure Python.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from vlm.models.processor import ProcessedImage

Decode = Callable[[], "Future[ProcessedImage]"]
"""Begins to decode an image. Cancelling the result gives it up."""


@dataclass(eq=False, slots=True)
class _Pending:
    """An image that is being decoded, and how many requests wait for it."""

    result: Future[ProcessedImage]
    waiting: int = 0


class ProcessorCache:
    """Preprocessed images by the hash of their bytes, least recently used first out, within a budget of bytes."""

    def __init__(self, budget: int) -> None:
        """``budget``: bytes of pixels to keep; with 0, only requests at the same time share an image."""
        self.budget = budget
        self.used = 0
        self._lock = threading.RLock()  # a result that is cancelled under it calls back at once
        self._kept: OrderedDict[bytes, ProcessedImage] = OrderedDict()
        self._pending: dict[bytes, _Pending] = {}

    def find(self, key: bytes) -> ProcessedImage | None:
        """The image if it is kept."""
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
            return found

    async def get(self, key: bytes, decode: Decode) -> ProcessedImage:
        """The image: kept, or being decoded for another request, or decoded now.

        Cancelling it gives the image up, unless another request waits for it.

        Args:
            key: Hash of the encoded image.
            decode: Begins to decode it; called only if nobody has done so.

        Raises:
            VlmError: As the result of ``decode``, for all requests that wait for it; an error is not cached.
        """
        with self._lock:  # of both, or an image that comes to be kept in between would be decoded and counted again
            if (found := self.find(key)) is not None:
                return found
            pending = self._join(key, decode)
        try:
            return await _own(pending.result)
        finally:
            self._leave(pending)

    def _join(self, key: bytes, decode: Decode) -> _Pending:
        pending = self._pending.get(key)
        if pending is None:
            pending = self._pending[key] = _Pending(decode())
            pending.result.add_done_callback(lambda _: self._ended(key, pending))
        pending.waiting += 1
        return pending

    def _leave(self, pending: _Pending) -> None:
        with self._lock:
            pending.waiting -= 1
            if not pending.waiting and not pending.result.done():
                pending.result.cancel()  # where it cannot be stopped, it goes on and is kept

    def _ended(self, key: bytes, pending: _Pending) -> None:
        result = pending.result
        with self._lock:
            del self._pending[key]
            if not result.cancelled() and result.exception() is None:
                self._keep(key, result.result())

    def _keep(self, key: bytes, image: ProcessedImage) -> None:
        self._kept[key] = image
        self.used += image.pixels.nbytes
        while self.used > self.budget:
            _, oldest = self._kept.popitem(last=False)
            self.used -= oldest.pixels.nbytes


def _own(result: Future[ProcessedImage]) -> asyncio.Future[ProcessedImage]:
    """A future for one request: cancelling it leaves the image to the others."""
    loop = asyncio.get_running_loop()
    own: asyncio.Future[ProcessedImage] = loop.create_future()

    def ended(_: Future[ProcessedImage]) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(_settle, own, result)

    result.add_done_callback(ended)
    return own


def _settle(own: asyncio.Future[ProcessedImage], result: Future[ProcessedImage]) -> None:
    if own.done():  # the request has left
        return
    if result.cancelled():
        own.cancel()
    elif (error := result.exception()) is not None:
        own.set_exception(error)
    else:
        own.set_result(result.result())
