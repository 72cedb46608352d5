"""Clients that hold what they have: connections, and requests of which a part never comes."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

CHAT = "/v1/chat/completions"
TIMEOUT_S = 30.0


@contextmanager
def connections(
    port: int, number: int, sends: bytes, timeout_s: float = TIMEOUT_S, receive_buffer: int = 0
) -> Iterator[list[socket.socket]]:
    """So many connections, each of which has sent this; with ``receive_buffer``, the kernel keeps no more for each."""
    opened: list[socket.socket] = []
    try:
        opened.extend(_connected(port, timeout_s, receive_buffer) for _ in range(number))
        for one in opened:
            one.sendall(sends)
        yield opened
    finally:
        for one in opened:
            one.close()


def _connected(port: int, timeout_s: float, receive_buffer: int) -> socket.socket:
    opened = socket.socket()
    opened.settimeout(timeout_s)
    if receive_buffer:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        opened.connect(("127.0.0.1", port))
    except OSError:
        opened.close()
        raise
    return opened


def head(*lines: str) -> bytes:
    """The head of a question with these headers."""
    return "\r\n".join((f"POST {CHAT} HTTP/1.1", "host: 127.0.0.1", *lines, "", "")).encode("latin-1")


def whole(body: Sequence[bytes], *lines: str) -> list[bytes]:
    """The parts of a whole request, after which the server closes the connection."""
    size = sum(map(len, body))
    return [head(f"content-length: {size}", "content-type: application/json", "connection: close", *lines), *body]


def received(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def send_until_refused(connection: socket.socket, part: bytes, times: int) -> int:
    """How many times ``part`` could be sent."""
    for sent in range(times):
        try:
            connection.sendall(part)
        except OSError:
            return sent
    return times


@contextmanager
def open_files(number: int) -> Iterator[None]:
    """Let this process, and those that it starts, have so many files open: one for each connection.

    Raises:
        OSError: The system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise OSError(f"needs {number} open files, of which the system allows {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
