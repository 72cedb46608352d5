"""What runs in a decoding process: ``python -m vlm.decoding.child SOCKET PARENT CPU_SECONDS``.

It first limits what it may do, then reads what decodes (``Processor.preprocess``, pickled by its parent), and then
decodes one image after the other until the socket is closed. It does not import torch, and takes about 35 MB.
"""

from __future__ import annotations

import ctypes
import math
import os
import pickle
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlm.decoding.wire import MAX_HEADER_BYTES, Ended, Header, receive, receive_task, send_reply
from vlm.errors import InvalidImage
from vlm.types import Cropped, EncodedImage

if TYPE_CHECKING:
    from vlm.models.processor import Preprocess

NICENESS = 2
"""The scheduler then prefers the engine's threads by three to two. With more, images wait so long for a busy machine
that batches become smaller, and an image may miss its deadline for want of CPU time."""

SPARE_BYTES = 64 * 1024**2
"""Memory beside the estimate of an image: what is resized, and what the allocator keeps of the images before."""

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the parent until it closes the socket."""
    number, parent, cpu_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    _restrict(parent)
    with socket.socket(fileno=number) as connection:
        try:
            serve(connection, _limits(cpu_s))
        except (Ended, ConnectionError):  # the parent has closed the socket, or ended
            return


def serve(connection: socket.socket, limit: Callable[[int], None]) -> None:
    """Read what decodes, say that it is there, and decode. ``limit`` is called with each image's bytes of memory."""
    size, *_ = receive_task(connection)
    preprocess: Preprocess = pickle.loads(receive(connection, size))  # noqa: S301  from its parent
    send_reply(connection, {"ready": True})
    while True:
        size, memory_bytes, box = receive_task(connection)
        limit(memory_bytes)
        image = receive(connection, size)
        _answer(connection, preprocess, image if box is None else Cropped(image, box))


def _answer(connection: socket.socket, preprocess: Preprocess, image: EncodedImage) -> None:
    header, pixels = _decoded(preprocess, image)
    send_reply(connection, header, pixels)


def _decoded(preprocess: Preprocess, image: EncodedImage) -> tuple[Header, memoryview]:
    try:
        made = preprocess(image)
        pixels = np.ascontiguousarray(made.pixels)
    except InvalidImage as error:
        if isinstance(error.__cause__, MemoryError):
            return {"memory": True}, memoryview(b"")
        return {"invalid": [error.message, error.param, error.code]}, memoryview(b"")
    except MemoryError:
        return {"memory": True}, memoryview(b"")
    except Exception as error:  # noqa: BLE001  a bug is reported to the parent, which logs it
        place = "".join(traceback.format_tb(error.__traceback__))  # its words may quote the image
        return {"bug": f"{place[-MAX_HEADER_BYTES // 8 :]}{type(error).__name__}"}, memoryview(b"")
    header = {"shape": pixels.shape, "dtype": pixels.dtype.str, "size": made.size}
    return header, pixels.data.cast("B")


def _restrict(parent: int) -> None:
    """Give way to the engine's threads, leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(1)


def _limits(cpu_s: float) -> Callable[[int], None]:
    """Sets the limits of a task: its memory on top of what the process has now, its CPU time on top of what is used."""
    memory_at_start = _data_bytes()

    def limit(memory_bytes: int) -> None:
        _set_soft_limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + cpu_s) + 1)
        if sys.platform == "linux":  # elsewhere the limit is not kept
            _set_soft_limit(resource.RLIMIT_DATA, memory_at_start + SPARE_BYTES + memory_bytes)

    return limit


def _set_soft_limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _data_bytes() -> int:
    """Bytes of data and stack, which RLIMIT_DATA counts; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    main()
