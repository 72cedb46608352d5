"""What the engine's process and a decoding process write to each other over a socket.

A task is its number of bytes, the memory that it may take, the box of the part that is wanted (all not-a-number for the
whole), and the encoded image. A reply is the length of a header,
the number of bytes of pixels, the header as JSON, and the pixels. Nothing that a decoding process writes is unpickled:
should an image take over its decoder, this is no way into the engine's process.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from vlm.types import Box, Cropped, EncodedImage

Header = Mapping[str, Any]

_TASK = struct.Struct("!QQ4d")
_WHOLE = (math.nan,) * 4
_REPLY = struct.Struct("!IQ")
_TIMEVAL = struct.Struct("@ll")

MAX_HEADER_BYTES = 64 * 1024
"""Longer than any message of an error, and than the traceback of a bug."""

MAX_PIXEL_BYTES = 256 * 1024**2
"""More than any model reads of one image, so that a broken process cannot make the engine's allocate without end."""

_USUAL_BYTES = 64 * 1024
"""What is asked for first of a reply: most of them come whole, with one call of the system."""


class Ended(Exception):
    """The other side has closed the socket, or wrote what it must not."""


def send_task(to: socket.socket, image: EncodedImage, memory_bytes: int, deadline: float) -> None:
    """Send an image, or at the beginning what decodes it. Raises OSError; TimeoutError at the deadline."""
    data, box = (image.image, astuple(image.box)) if isinstance(image, Cropped) else (image, _WHOLE)
    header, body = _TASK.pack(len(data), memory_bytes, *box), memoryview(data)
    try:
        sent = to.sendmsg([header, body], (), socket.MSG_DONTWAIT)
    except BlockingIOError as error:  # what came before has not been read
        raise TimeoutError from error
    if sent < len(header) + len(body):  # few images are that long
        # Not the kernel's limit: it holds for each buffer anew, so that a process could read for ever, one at a time.
        to.settimeout(max(deadline - time.monotonic(), 1e-6))
        _send_rest(to, header, body, sent)
        to.settimeout(None)


def receive_task(source: socket.socket) -> tuple[int, int, Box | None]:
    """The number of bytes that follow, the memory that the task may take, and the part's box. Raises Ended."""
    size, memory_bytes, *box = _TASK.unpack(receive(source, _TASK.size))
    return size, memory_bytes, None if math.isnan(box[0]) else Box(*box)


def receive(source: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes, however long they take. Raises Ended."""
    data = b""
    try:
        while len(data) < size:  # a call ends early where this process is held still, and goes on
            piece = source.recv(size - len(data), socket.MSG_WAITALL)
            _some(len(piece))
            data += piece
    except ConnectionError as error:
        raise Ended from error
    return data


def send_reply(to: socket.socket, header: Header, pixels: memoryview = memoryview(b"")) -> None:
    """Send a result, or an error without pixels."""
    text = json.dumps(header).encode()
    start = _REPLY.pack(len(text), pixels.nbytes) + text
    _send_rest(to, start, pixels, to.sendmsg([start, pixels]))


def receive_reply(source: socket.socket, deadline: float) -> tuple[Header, bytearray]:
    """The header and the pixels of a reply.

    Raises:
        TimeoutError: It was not there at ``deadline``, a time of ``time.monotonic``.
        Ended: The process ended, or wrote something else.
    """
    try:
        text, pixels = _parts(source, deadline)
    except BlockingIOError as error:
        raise TimeoutError from error
    except ConnectionError as error:
        raise Ended from error
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:  # the second one of thousands of brackets
        raise Ended from error
    if not isinstance(header, dict):
        raise Ended
    return header, pixels


def _parts(source: socket.socket, deadline: float) -> tuple[bytes, bytearray]:
    """The header's text and the pixels."""
    data = _at_least(_REPLY.size, b"", source, deadline)
    length, size = _REPLY.unpack_from(data)
    if length > MAX_HEADER_BYTES or size > MAX_PIXEL_BYTES:
        raise Ended
    start = _REPLY.size + length
    data = _at_least(start, data, source, deadline)
    pixels, there = bytearray(size), memoryview(data)[start:]
    if len(there) > size:
        raise Ended
    pixels[: len(there)] = there
    rest = memoryview(pixels)[len(there) :]
    while rest:
        _wait_until(deadline, source)
        rest = rest[_some(source.recv_into(rest, 0, socket.MSG_WAITALL)) :]
    return data[_REPLY.size : start], pixels


def _at_least(size: int, data: bytes, source: socket.socket, deadline: float) -> bytes:
    """``data`` and what follows it: so many bytes, and perhaps more."""
    while len(data) < size:
        _wait_until(deadline, source)
        piece = source.recv(_USUAL_BYTES)
        _some(len(piece))
        data += piece
    return data


def _some(count: int) -> int:
    """The number of bytes that were received. Raises Ended if there were none."""
    if not count:
        raise Ended
    return count


def _send_rest(to: socket.socket, header: bytes, data: memoryview, sent: int) -> None:
    """What is left of both parts after so many bytes."""
    if sent < len(header):
        to.sendall(header[sent:])
    if sent < len(header) + len(data):
        to.sendall(data[max(sent - len(header), 0) :])


def _wait_until(deadline: float, connection: socket.socket) -> None:
    """Limit how long the next call waits for data, which then raises BlockingIOError; TimeoutError at the deadline.

    The limit is the kernel's own. With ``settimeout``, Python asks before each call whether it would wait, which is a
    second call, and after each of the two this thread waits for the interpreter's lock.
    """
    left = deadline - time.monotonic()
    if left <= 0:  # otherwise what comes byte by byte would go on for ever
        raise TimeoutError
    seconds, microseconds = divmod(max(int(1e6 * left), 1), 1_000_000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(seconds, microseconds))
