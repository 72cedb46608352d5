"""What the engine's process and a decoding process write to each other over a socket.

A task is its number of bytes, the memory that it may take, and the encoded image. A reply is the length of a header,
the number of bytes of pixels, the header as JSON, and the pixels. Nothing that a decoding process writes is unpickled:
should an image take over its decoder, this is no way into the engine's process.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

Header = Mapping[str, Any]

_TASK = struct.Struct("!QQ")
_REPLY = struct.Struct("!IQ")

MAX_HEADER_BYTES = 64 * 1024
"""Longer than any message of an error, and than the traceback of a bug."""

MAX_PIXEL_BYTES = 256 * 1024**2
"""More than any model reads of one image, so that a broken process cannot make the engine's allocate without end."""


class Ended(Exception):
    """The other side has closed the socket, or wrote what it must not."""


def send_task(to: socket.socket, data: bytes, memory_bytes: int = 0) -> None:
    """Send an image, or at the beginning what decodes it. Raises OSError; TimeoutError by the socket's timeout."""
    to.sendall(_TASK.pack(len(data), memory_bytes))
    to.sendall(data)


def receive_task(source: socket.socket) -> tuple[int, int]:
    """The number of bytes that follow, and the memory that the task may take. Raises Ended."""
    size, memory_bytes = _TASK.unpack(receive(source, _TASK.size))
    return size, memory_bytes


def send_reply(to: socket.socket, header: Header, pixels: memoryview = memoryview(b"")) -> None:
    """Send a result, or an error without pixels."""
    text = json.dumps(header).encode()
    to.sendall(_REPLY.pack(len(text), pixels.nbytes) + text)
    to.sendall(pixels)


def receive_reply(source: socket.socket, deadline: float) -> tuple[Header, bytearray]:
    """The header and the pixels of a reply.

    Raises:
        TimeoutError: It was not there at ``deadline``, a time of ``time.monotonic``.
        Ended: The process ended, or wrote something else.
    """
    lengths = _REPLY.unpack(receive(source, _REPLY.size, deadline))
    if lengths[0] > MAX_HEADER_BYTES or lengths[1] > MAX_PIXEL_BYTES:
        raise Ended
    text, pixels = (receive(source, length, deadline) for length in lengths)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:  # the second one of thousands of brackets
        raise Ended from error
    if not isinstance(header, dict):
        raise Ended
    return header, pixels


def receive(source: socket.socket, size: int, deadline: float | None = None) -> bytearray:
    """Exactly ``size`` bytes. Raises Ended, and TimeoutError at the deadline."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        if deadline is not None:
            source.settimeout(max(deadline - time.monotonic(), 1e-6))
        try:
            count = source.recv_into(rest)
        except ConnectionError as error:
            raise Ended from error
        if not count:
            raise Ended
        rest = rest[count:]
    return data
