"""Images that were preprocessed lately: several questions about one, at once or in a row, decode it once.

Used from the threads that prepare requests. Only what was computed from the same bytes is found again. Pure Python.
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
        image: Will hold it; nobody can cancel it.
    """

    def __init__(self, image: Future[ProcessedImage]) -> None:
        super().__init__()
        self.image = image


class ProcessorCache:
    """Preprocessed images by the hash of their bytes, least recently used first out, within a budget of bytes."""

    def __init__(self, budget: int) -> None:
        """``budget``: bytes of pixels to keep; with 0, only those who ask at the same time share an image."""
        self.budget = budget
        self.used = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Future[ProcessedImage]] = OrderedDict()

    def preprocess(self, key: bytes, image: bytes, preprocess: Preprocess) -> ProcessedImage:
        """What ``look`` makes of the image, from memory where it is known.

        Raises:
            VlmError: As ``look`` does, for all who wait; nothing is remembered then.
            ImagePending: Another thread is at it; to wait here would keep a thread from other images.
        """
        mine: Future[ProcessedImage] = Future()
        mine.set_running_or_notify_cancel()  # who waits and leaves must not cancel it for the others
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
            future.set_exception(error.with_traceback(None))  # whose frames would keep the image alive
        finally:
            if not future.done():  # a fault of ours is on its way up; who waits must not wait for ever
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
