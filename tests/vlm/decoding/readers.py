"""What the decoding processes of the tests do with an image: its bytes are the name of a method below."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass

import numpy as np

from vlm.decoding.cost import bytes_of
from vlm.errors import InvalidImage
from vlm.models.processor import ProcessedImage
from vlm.types import EncodedImage


@dataclass(frozen=True)
class Acting:
    """Calls the method that the image names, or ``always`` whatever the image is."""

    always: str = ""

    def __call__(self, image: EncodedImage) -> ProcessedImage:
        method = getattr(self, self.always or bytes_of(image).decode())
        return ProcessedImage(np.full((1, 1), method(), np.float32), (1, 1))

    def pid(self) -> int:
        return os.getpid()

    def hang(self) -> int:
        time.sleep(60)
        return 0

    def allocate(self) -> int:
        return len(np.empty(128 * 1024**2, np.uint8))  # its pages are never touched

    def invalid(self) -> int:
        raise InvalidImage("no image", "image", "invalid_image")

    def crash(self) -> int:
        os.kill(os.getpid(), signal.SIGSEGV)
        return 0

    def ended(self) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def bug(self) -> int:
        return 1 // 0

    def rights(self) -> int:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert not {"HOME", "PATH", "USER"} & os.environ.keys()
        assert not {"torch", "tokenizers", "transformers", "ray"} & sys.modules.keys()
        return os.nice(0)
