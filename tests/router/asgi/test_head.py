"""The heads of requests, on a real uvicorn server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from router.asgi.head import MAX_PIPELINED, head_protocol
from router.config import RouterConfig

LINE = b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\n"


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def connected(**limits: Any) -> Iterator[socket.socket]:
    config = RouterConfig(**limits)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(echo, log_level="critical", lifespan="off", http=head_protocol(config), loop="asyncio")
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), timeout=20) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def answer(client: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of what comes until the server closes the connection."""
    received = b""
    while part := client.recv(65536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


def check(client: socket.socket, status: int, code: str) -> None:
    head, body = answer(client)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/json" in head
    assert b"x-request-id: req_" in head
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code


def send_until_refused(client: socket.socket, part: bytes, times: int = 1000) -> None:
    try:
        for _ in range(times):
            client.sendall(part)
    except OSError:
        return
    raise AssertionError("all of it was taken")


@pytest.mark.parametrize("part", [b"x" * 65536, b"x: y\r\n" * 10_000])
def test_a_head_without_an_end_is_refused(part: bytes) -> None:
    with connected() as client:
        client.sendall(LINE + b"x: ")
        send_until_refused(client, part)
        check(client, 431, "headers_too_large")


def test_trailers_without_an_end_are_cut() -> None:
    with connected() as client:
        client.sendall(LINE + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ")
        send_until_refused(client, b"x" * 65536)


def test_a_slow_head_is_refused() -> None:
    with connected(head_timeout_s=0.2) as client:
        client.sendall(LINE)
        check(client, 408, "request_timeout")


def test_a_connection_without_a_request_is_closed() -> None:
    with connected(head_timeout_s=0.2) as client:
        assert answer(client) == (b"", b"")


def test_a_web_socket_is_refused() -> None:
    with connected() as client:
        client.sendall(LINE + b"connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\n{}")
        check(client, 400, "invalid_http")


def test_an_empty_line_does_not_keep_a_connection_open() -> None:
    with connected(head_timeout_s=0.2) as client:
        client.sendall(LINE + b"content-length: 0\r\n\r\n\r\n")
        assert answer(client)[0].startswith(b"HTTP/1.1 200 ")


def test_what_is_not_http_is_refused_in_the_contract() -> None:
    for sent in (b"garbage\r\n\r\n", b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n"):
        with connected() as client:
            client.sendall(sent)
            check(client, 400, "invalid_http")


def test_bodies_and_further_requests_are_not_heads() -> None:
    with connected(max_head_bytes=100) as client:
        for _ in range(3):
            client.sendall(LINE + b"content-length: 300000\r\n\r\n" + b"a" * 300_000)
            received = b""
            while not received.endswith(b"\r\n\r\n" + b"a" * 300_000):
                received += client.recv(65536)
        client.sendall(LINE + b"connection: close\r\ncontent-length: 0\r\n\r\n")
        assert answer(client)[0].startswith(b"HTTP/1.1 200 ")


def test_few_requests_may_follow_each_other_unanswered() -> None:
    with connected() as client:
        client.sendall(LINE + b"content-length: 1\r\n\r\n")  # its answer needs the body, which comes last
        client.sendall(b"a" + (LINE + b"content-length: 0\r\n\r\n") * MAX_PIPELINED)
        received = b""
        while received.count(b"HTTP/1.1 200 ") <= MAX_PIPELINED:
            received += client.recv(65536)
        client.sendall((LINE + b"content-length: 0\r\n\r\n") * 1000)
        assert answer(client)[0].count(b"HTTP/1.1 200 ") <= MAX_PIPELINED + 1
