"""What a decoding process writes is read with mistrust: it may have been taken over by an image."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from typing import cast

import numpy as np
import pytest

from vlm.decoding.process import Gone, _error, _processed
from vlm.decoding.wire import (
    MAX_HEADER_BYTES,
    MAX_PIXEL_BYTES,
    Ended,
    receive,
    receive_reply,
    receive_task,
    send_reply,
    send_task,
)


def replied(data: bytes) -> tuple[object, bytearray]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        return receive_reply(ours, time.monotonic() + 10)


def framed(text: bytes, pixels: bytes = b"") -> bytes:
    return struct.pack("!IQ", len(text), len(pixels)) + text + pixels


def test_a_reply_arrives_as_it_was_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send_reply(theirs, {"shape": [2, 1]}, memoryview(b"ab"))
        assert receive_reply(ours, time.monotonic() + 10) == ({"shape": [2, 1]}, bytearray(b"ab"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 5,
        framed(b"{}")[:-1],
        framed(b"not json"),
        framed(b"\xff"),
        framed(b"[]"),
        framed(b"[" * MAX_HEADER_BYTES),
        struct.pack("!IQ", MAX_HEADER_BYTES + 1, 0),
        struct.pack("!IQ", 0, MAX_PIXEL_BYTES + 1),
    ],
)
def test_nonsense_is_the_end_of_the_process(data: bytes) -> None:
    with pytest.raises(Ended):
        replied(data)


def test_nothing_is_awaited_beyond_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        receive_reply(ours, time.monotonic() - 1)


def test_nothing_is_read_after_the_deadline() -> None:
    """A process that has been taken over could send its reply byte by byte."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(framed(b"{}"))
        with pytest.raises(TimeoutError):
            receive_reply(ours, time.monotonic() - 1)


def test_a_process_that_reads_slowly_is_not_waited_for_beyond_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    ended = threading.Event()

    def read_slowly() -> None:
        while not ended.wait(0.05):
            theirs.recv(64 * 1024)

    reader = threading.Thread(target=read_slowly, daemon=True)
    with ours, theirs:
        reader.start()
        with pytest.raises(TimeoutError):
            send_task(ours, bytes(16 * 1024**2), 0, time.monotonic() + 0.2)  # which it reads in 12 s
        ended.set()
        reader.join()


def test_a_long_task_arrives_and_the_reply_to_it_is_waited_for() -> None:
    ours, theirs = socket.socketpair()
    task = bytes(range(256)) * 4096
    received: list[bytes] = []

    def answer() -> None:
        size, *_ = receive_task(theirs)
        received.append(receive(theirs, size))
        time.sleep(0.05)
        send_reply(theirs, {})

    child = threading.Thread(target=answer, daemon=True)
    with ours, theirs:
        child.start()
        send_task(ours, task, 0, time.monotonic() + 60)
        assert receive_reply(ours, time.monotonic() + 60) == ({}, bytearray())
        child.join()
    assert received == [task]


class Interrupted:
    """A socket whose calls end early, as those of a process do that is stopped and goes on."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def recv(self, size: int, flags: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def test_a_call_that_ends_early_is_not_the_end_of_what_is_read() -> None:
    assert receive(cast(socket.socket, Interrupted(b"ab", b"c")), 3) == b"abc"
    with pytest.raises(Ended):
        receive(cast(socket.socket, Interrupted(b"ab")), 3)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"shape": [2, 2], "dtype": "|u1", "size": [1, 1]},
        {"shape": [-1, -3], "dtype": "|u1", "size": [1, 1]},
        {"shape": ["3"], "dtype": "|u1", "size": [1, 1]},
        {"shape": [3], "dtype": "|O", "size": [1, 1]},
        {"shape": [3], "dtype": "|u1", "size": [1]},
        {"shape": [3], "dtype": "|u1", "size": ["1", 1]},
        {"shape": [3], "dtype": "|u1", "size": [0, 1]},
        {"shape": [3], "dtype": "|u1", "size": [1, 10**30]},
        {"shape": [1] * 64 + [3], "dtype": "|u1", "size": [1, 1]},
        {"invalid": "no"},
    ],
)
def test_pixels_that_do_not_fit_their_header_are_the_end_of_the_process(header: dict[str, object]) -> None:
    with pytest.raises(Gone):
        _processed(json.loads(json.dumps(header)), bytearray(3))


@pytest.mark.parametrize("dtype", ["<f4", "|u1"])
def test_pixels_are_floats_or_bytes(dtype: str) -> None:
    pixels = np.arange(6, dtype=dtype).reshape(1, 2, 3)
    made = _processed({"shape": [1, 2, 3], "dtype": dtype, "size": [3, 2]}, bytearray(pixels.tobytes()))
    assert made.pixels.dtype == dtype
    assert np.array_equal(made.pixels, pixels)


def test_an_error_that_is_none_of_ours_is_the_end_of_the_process() -> None:
    assert isinstance(_error({"invalid": [1, None, None]}), Gone)
