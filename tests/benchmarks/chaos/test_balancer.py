"""The load balancer tries a request again whose server ended before it answered."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from benchmarks.chaos.balancer import RETRY_ON, Balancer, balancing
from benchmarks.http.servers import free_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux alone")

BODY = bytes(200_000)


class Answers(BaseHTTPRequestHandler):
    """Answers; or, as often as its server is to, reads a request and ends the connection without an answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(b"ready")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Server)
        if self.server.losses:
            self.server.losses -= 1
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self._send(b"answered")

    def _send(self, text: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    losses = 0


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Answers) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            found.shutdown()
            thread.join()


@contextmanager
def before(server: Server, folder: Path, retry_on: str) -> Iterator[tuple[Balancer, httpx.Client]]:
    port = free_port()
    with (
        balancing(folder, port, [server.server_port], retry_on) as balancer,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=10), timeout=30
        ) as http,
    ):
        assert http.get("/").text == "ready"
        yield balancer, http


def test_a_request_whose_server_ended_is_tried_again(server: Server, tmp_path: Path) -> None:
    with before(server, tmp_path, RETRY_ON) as (balancer, http):
        server.losses = 1
        assert http.post("/", content=BODY).text == "answered"
        assert balancer.retries() > 0


def test_without_the_retries_it_is_lost(server: Server, tmp_path: Path) -> None:
    with before(server, tmp_path, "conn-failure") as (_, http):
        server.losses = 1
        try:
            lost = http.post("/", content=BODY).status_code == 502
        except httpx.RemoteProtocolError:  # where the balancer had used the connection before
            lost = True
        assert lost
