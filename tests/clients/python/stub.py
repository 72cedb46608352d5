"""A server between a client and the system that counts requests, and that can answer some of them itself."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Headers = dict[str, str]
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server", "content-length"}
PIECE_BYTES = 65_536


@dataclass(frozen=True)
class Refusal:
    """An answer of the stub's own.

    Attributes:
        status: HTTP status.
        code: Of the error in the body.
        headers: Beside those of the body.
        delay_s: Time in seconds before it is sent.
    """

    status: int
    code: str
    headers: Headers = field(default_factory=dict)
    delay_s: float = 0.0

    @property
    def body(self) -> bytes:
        """As the router writes errors."""
        error = {"message": "The stub refuses.", "type": "server_error", "param": "model", "code": self.code}
        return json.dumps({"error": error}).encode()


OVERLOADED = Refusal(503, "overloaded", {"Retry-After": "1"})


@dataclass(frozen=True)
class Call:
    """A request that arrived."""

    path: str
    headers: Headers
    body: Any


class Stub:
    """Passes requests on to the system at ``target``, after the refusals that were ordered."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target)
        self.url = ""
        self.calls: list[Call] = []
        self._refusals: list[Refusal] = []

    def refuse(self, *refusals: Refusal) -> None:
        """Answer the next requests so."""
        self._refusals = list(refusals)

    def next_refusal(self) -> Refusal | None:
        """The answer to a request, if it is not to be passed on."""
        return self._refusals.pop(0) if self._refusals else None

    @property
    def bodies(self) -> list[Any]:
        """What the clients sent."""
        return [call.body for call in self.calls]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.stub.calls.append(Call(self.path, dict(self.headers), _parsed(data)))
        if refusal := self.stub.next_refusal():
            time.sleep(refusal.delay_s)
            self._answer(refusal.status, {**refusal.headers, "Content-Type": "application/json"}, refusal.body)
        else:
            self._pass_on(data)

    do_GET = do_DELETE = do_POST  # noqa: N815  # the names are http.server's

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is http.server's
        return

    def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _pass_on(self, data: bytes) -> None:
        target = self.stub.target
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {*HOP_BY_HOP, "host"}}
        connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
        try:
            connection.request(self.command, self.path, data or None, headers)
            self._relay(connection.getresponse())
        finally:
            connection.close()

    def _relay(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Connection", "close")  # its end is the end of the body, whole or streamed
        self.end_headers()
        while piece := answer.read1(PIECE_BYTES):
            self.wfile.write(piece)
            self.wfile.flush()


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data) if data else None
    except ValueError:
        return data


@contextmanager
def stub_before(target: str) -> Iterator[Stub]:
    """A stub on a free port of this machine, until the end of the block."""
    stub = Stub(target)
    handler = type("Handler", (_Handler,), {"stub": stub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
