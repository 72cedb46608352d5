"""An OTLP/HTTP collector in this process, which keeps what it is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What has been sent, and where to send it."""

    url: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, path: str, content: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(content)
        with self._changed:
            self.paths.add(path)
            for group in message.resource_spans:
                service = str(texts(group.resource.attributes)["service.name"])
                self.spans += [(service, span) for scope in group.scope_spans for span in scope.spans]
            self._changed.notify_all()

    def wait_until(self, enough: Callable[[list[tuple[str, Span]]], bool]) -> list[tuple[str, Span]]:
        """All spans, with their services, once there are enough."""
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self.spans), 60), self.spans
            return [*self.spans]


def texts(attributes: object) -> dict[str, object]:
    """Attributes as a mapping."""
    found: dict[str, object] = {}
    for one in attributes:  # type: ignore[attr-defined]
        assert isinstance(one, KeyValue)
        found[one.key] = getattr(one.value, one.value.WhichOneof("value") or "string_value")
    return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on a free port of 127.0.0.1."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
