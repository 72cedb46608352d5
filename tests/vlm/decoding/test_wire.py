"""What a decoding process writes is read with mistrust: it may have been taken over by an image."""

from __future__ import annotations

import json
import socket
import struct
import time

import numpy as np
import pytest

from vlm.decoding.process import Gone, _error, _processed
from vlm.decoding.wire import MAX_HEADER_BYTES, MAX_PIXEL_BYTES, Ended, receive_reply, send_reply


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
