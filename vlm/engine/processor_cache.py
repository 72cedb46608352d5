"""Recently preprocessed images: several questions about one, at once or one after the other, decode it once.

The threads that prepare requests share it. The key is a hash of the encoded bytes. Pure Python.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future

from vlm.errors import EngineFailure, VlmError
from vlm.models.processor import Preprocess, ProcessedImage


class ImagePending(Exception):
    """Another thread is preprocessing the same image.

    Attributes:
        image: Will hold the preprocessed image, or the error; it cannot be cancelled.
    """

    def __init__(self, image: Future[ProcessedImage]) -> None:
        super().__init__()
        self.image = image


class ProcessorCache:
    """Preprocessed images by the hash of their bytes, least recently used first out, within a budget of bytes."""

    def __init__(self, budget: int) -> None:
        """``budget``: bytes of pixels to keep; with 0, only requests at the same time share an image."""
        self.budget = budget
        self.used = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Future[ProcessedImage]] = OrderedDict()

    def preprocess(self, key: bytes, image: bytes, preprocess: Preprocess) -> ProcessedImage:
        """The result of ``preprocess``, from the cache if it is there.

        Args:
            key: Hash of ``image``.
            image: The encoded image.
            preprocess: Decodes and resizes it.

        Raises:
            VlmError: As ``preprocess`` does, also for the requests that wait for it; an error is not cached.
            ImagePending: Another thread is preprocessing the image; waiting here would occupy this thread.
        """
        mine: Future[ProcessedImage] = Future()
        mine.set_running_or_notify_cancel()  # so that a client that waits for it cannot cancel it for others
        with self._lock:
            found = self._kept.setdefault(key, mine)
            self._kept.move_to_end(key)
        if found is mine:
            self._compute(key, image, preprocess, mine)
        elif not found.done():
            raise ImagePending(found)
        return found.result()

    def _compute(self, key: bytes, image: bytes, preprocess: Preprocess, future: Future[ProcessedImage]) -> None:
        try:
            future.set_result(preprocess(image))
        except VlmError as error:
            future.set_exception(error.with_traceback(None))  # the traceback's frames would keep the image alive
        finally:
            if not future.done():  # another exception, a bug, is being raised: no other request may wait for ever
                future.set_exception(EngineFailure("The image could not be preprocessed."))
            self._keep(key, future)

    def _keep(self, key: bytes, future: Future[ProcessedImage]) -> None:
        with self._lock:
            if future.exception() is not None:
                del self._kept[key]
                return
            self.used += future.result().pixels.nbytes
            for oldest in list(self._kept):
                if self.used <= self.budget:
                    break
                if self._kept[oldest].done():
                    self.used -= self._kept.pop(oldest).result().pixels.nbytes
