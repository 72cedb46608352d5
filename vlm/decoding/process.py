"""One decoding process, as the engine's process sees it: started, given one image at a time, and killed if need be.

It is a fresh interpreter (``subprocess``) and not a fork, which is not safe beside torch's threads. Nor is it one of
``multiprocessing``'s, which would import the program's main module again, with whatever that imports.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from math import prod

import numpy as np

from vlm.decoding.wire import Ended, Header, receive_reply, send_task
from vlm.errors import EngineFailure, InvalidImage
from vlm.models.processor import ProcessedImage
from vlm.types import EncodedImage

START_S = 60
"""Patience with a process that starts, in seconds: it takes 0.1 to 0.3, but the machine may be very busy."""

REAP_S = 5
"""Patience with a process that was killed, in seconds; the kernel ends it at once unless a device holds it."""

# glibc then keeps what images of a usual size need, at most 32 MiB, instead of asking the kernel for each image again,
# which makes decoding a quarter faster.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(8 * 1024**2), "MALLOC_TRIM_THRESHOLD_": str(32 * 1024**2)}

# Without them, some installations of Python do not find their own libraries.
_OF_THE_INTERPRETER = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")

_PIXELS = {name: np.dtype(name) for name in ("<f4", "|u1")}
_MAX_DIMENSIONS = 4  # crops, channels, rows and columns
_MAX_SIDE = 2**31 - 1


class Gone(Exception):
    """The process has ended: ``code`` is its exit code, or minus the signal that ended it."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class DecodingProcess:
    """A process that runs :mod:`vlm.decoding.child`. One thread uses it; any thread may kill it."""

    def __init__(self, pickled: bytes, cpu_s: float) -> None:
        """Start it.

        Args:
            pickled: What decodes an image, pickled.
            cpu_s: CPU seconds that one image may take.

        Raises:
            OSError, Gone: It does not start; TimeoutError: not within START_S seconds.
        """
        self.tasks = 0
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start(theirs, cpu_s)
        except OSError:
            self._socket.close()
            raise
        try:
            self._exchange(pickled, 0, time.monotonic() + START_S)
        except (OSError, Gone):
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def decode(self, image: EncodedImage, memory_bytes: int, deadline: float) -> ProcessedImage:
        """Decode and resize an image.

        Args:
            image: The encoded image, or the part of one.
            memory_bytes: Memory that it may take.
            deadline: A time of ``time.monotonic``.

        Raises:
            InvalidImage: It cannot be decoded, or takes more memory.
            EngineFailure: What decodes it has a bug; its traceback is the cause.
            TimeoutError: It was not there at the deadline. The process must be closed.
            Gone: The process has ended.
        """
        self.tasks += 1
        header, pixels = self._exchange(image, memory_bytes, deadline)
        return _processed(header, pixels)

    def kill(self) -> None:
        """End the process; the thread that waits for it gets Gone."""
        self._process.kill()

    def close(self) -> None:
        """End the process and reap it."""
        self._process.kill()
        self._socket.close()
        self._reap()

    def _exchange(self, data: EncodedImage, memory_bytes: int, deadline: float) -> tuple[Header, bytearray]:
        try:
            send_task(self._socket, data, memory_bytes, deadline)
            return receive_reply(self._socket, deadline)
        except (Ended, ConnectionError) as error:
            self._process.kill()  # it may only have written nonsense
            raise Gone(self._reap()) from error

    def _reap(self) -> int | None:
        try:
            return self._process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            return None


def _start(theirs: socket.socket, cpu_s: float) -> subprocess.Popen[bytes]:
    number = theirs.fileno()
    command = [sys.executable, "-P", "-m", "vlm.decoding.child", str(number), str(os.getpid()), str(cpu_s)]
    # The whole environment: what a client's image might take over has no need of tokens and passwords.
    environment = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "OPENBLAS_NUM_THREADS": "1"}
    environment |= {name: os.environ[name] for name in _OF_THE_INTERPRETER if name in os.environ}
    return subprocess.Popen(  # noqa: S603  the command is ours
        command, env=environment | _ALLOCATOR, pass_fds=(number,), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def _processed(header: Header, pixels: bytearray) -> ProcessedImage:
    match header:
        case {"shape": [*shape], "dtype": str(dtype), "size": [int(width), int(height)]} if (
            _fits(shape, dtype, pixels) and 0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE
        ):
            return ProcessedImage(np.frombuffer(pixels, _PIXELS[dtype]).reshape(shape), (width, height))
        case _:
            raise _error(header)


def _fits(shape: list[object], dtype: str, pixels: bytearray) -> bool:
    sides = [side for side in shape if isinstance(side, int) and 0 < side <= _MAX_SIDE]
    if dtype not in _PIXELS or not len(sides) == len(shape) <= _MAX_DIMENSIONS:
        return False
    return prod(sides) * _PIXELS[dtype].itemsize == len(pixels)


def _error(header: Header) -> Exception:
    match header:
        case {"invalid": [str(message), str() | None as param, str() | None as code]}:
            return InvalidImage(message, param, code)
        case {"memory": True}:
            return InvalidImage(
                "Decoding the image takes more memory than its size calls for; save it anew as a PNG or a baseline "
                "JPEG, or send it with fewer pixels.",
                code="image_too_large",
            )
        case {"bug": str(text)}:
            error = EngineFailure("The image could not be prepared.")
            error.__cause__ = RuntimeError(text)
            return error
    return Gone(None)
