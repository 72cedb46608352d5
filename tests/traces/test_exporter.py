"""What OpenTelemetry makes of our spans, and what a collector that is down may cost."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, http_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import SpanKind, StatusCode

from deployments import replica_traces
from router.tracing import names
from tests.traces.collector import collecting, texts
from traces import exporter
from traces.context import Context
from traces.current import child_of
from traces.exporter import COMPLAIN_EVERY_S, SDK_LOGGERS, Complaints, Exporter, LazyExporter, resource_of
from traces.span import MAX_EVENTS, Span

SECOND = 10**9


def span_of(name: str = "parent", parent: Context | None = None) -> Span:
    return Span(name, Context.new(sampled=True), parent, "server", 5 * SECOND, ended_ns=7 * SECOND)


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def exporting(memory: InMemorySpanExporter) -> Iterator[Exporter]:
    made = Exporter("console", resource_of("router", "ab12"), memory)
    yield made
    made.stop()


def test_a_span_keeps_its_ids_its_times_and_what_it_says(exporting: Exporter, memory: InMemorySpanExporter) -> None:
    caller, earlier = Context.new(sampled=True), Context.new(sampled=True)
    parent = Span("parent", Context.new(caller.trace_id, sampled=True), caller, "server", 5 * SECOND, 7 * SECOND)
    parent.attributes["gigarouter.images"] = 2
    parent.note("retry", 6 * SECOND, reason="lost")
    parent.failed, parent.link = True, earlier
    child = child_of(parent, "child", "client", 6 * SECOND)
    child.ended_ns = 6 * SECOND + 1
    for one in (child, parent):
        exporting.put(one)
    exporting.stop()
    sent_child, sent = memory.get_finished_spans()
    assert f"{sent.context.span_id:016x}" == parent.context.span_id
    assert sent.context.trace_id == sent_child.context.trace_id == int(parent.context.trace_id, 16)
    assert sent.parent is not None
    assert f"{sent.parent.span_id:016x}" == caller.span_id
    assert (sent.start_time, sent.end_time) == (5 * SECOND, 7 * SECOND)
    assert (sent.kind, sent_child.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert sent.attributes == {"gigarouter.images": 2}
    assert [(one.name, one.timestamp, one.attributes) for one in sent.events] == [
        ("retry", 6 * SECOND, {"reason": "lost"})
    ]
    assert [f"{one.context.span_id:016x}" for one in sent.links] == [earlier.span_id]
    assert (sent.status.status_code, sent_child.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert sent_child.parent is not None
    assert f"{sent_child.parent.span_id:016x}" == parent.context.span_id
    said = sent.resource.attributes
    assert (said["service.name"], said["service.instance.id"]) == ("gigarouter-router", "ab12")


def test_the_first_span_of_a_trace_has_no_parent(exporting: Exporter, memory: InMemorySpanExporter) -> None:
    exporting.put(span_of())
    exporting.stop()
    (sent,) = memory.get_finished_spans()
    assert sent.parent is None


def test_after_the_end_nothing_is_sent(exporting: Exporter, memory: InMemorySpanExporter) -> None:
    exporting.stop()
    exporting.put(span_of())
    exporting.stop()
    assert memory.get_finished_spans() == ()


def test_a_collector_gets_them_over_http() -> None:
    with collecting() as collector:
        made = Exporter(collector.url, resource_of("router"))
        made.put(span_of())
        made.stop()
        ((service, sent),) = collector.wait_until(bool)
    assert (service, sent.name, collector.paths) == ("gigarouter-router", "parent", {"/v1/traces"})
    assert texts(sent.attributes) == {}


def test_a_replica_makes_it_when_its_first_span_comes(memory: InMemorySpanExporter) -> None:
    made: list[str] = []

    def make(target: str) -> Exporter:
        made.append(target)
        return Exporter(target, resource_of(), memory)

    lazy = LazyExporter("console", make)
    assert made == []
    for _ in range(3):
        lazy.put(span_of())
    lazy.stop()
    assert made == ["console"]
    assert len(memory.get_finished_spans()) == 3


def test_a_replica_without_the_packages_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exporter, "is_installed", lambda target: False)
    lazy = LazyExporter("otlp", lambda target: pytest.fail("it is not to be made"))
    for _ in range(1000):
        lazy.put(span_of())
    lazy.stop()
    assert [message for message in caplog.messages if "gigarouter[traces]" in message] == caplog.messages
    assert len(caplog.messages) == 1


class Stuck(SpanExporter):
    """A collector that never answers, until it is shut down."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.released = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.released.wait(60)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.released.set()


def test_a_collector_that_does_not_answer_holds_up_neither_requests_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter, "STOP_S", 0.05)
    stuck = Stuck()
    made = Exporter("console", resource_of(), stuck)
    for _ in range(3000):  # more than the queue holds
        made.put(span_of())
    assert stuck.asked.wait(30)
    assert not stuck.released.is_set()
    made.stop()
    assert stuck.released.is_set()


class Lines(logging.Handler):
    """The names of the loggers whose lines come here."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.names.append(record.name)


def test_a_closed_port_costs_one_line_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "STOP_S", 0.5)
    monkeypatch.setattr(exporter, "COMPLAINTS", Complaints())
    for name in SDK_LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ours, all_lines = Lines(), Lines()
    exporter.log.addHandler(ours)
    logging.getLogger().addHandler(all_lines)
    for _ in range(2):
        made = Exporter(f"http://127.0.0.1:{port}", resource_of())
        for _ in range(1200):
            made.put(span_of())
        made.stop()
    exporter.log.removeHandler(ours)
    logging.getLogger().removeHandler(all_lines)
    assert ours.names == ["traces.exporter"]
    assert [name for name in all_lines.names if name.startswith("opentelemetry")] == []


def test_complaints_are_counted_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    complaints = Complaints(lambda: now[0])
    record = logging.LogRecord(SDK_LOGGERS[0], logging.ERROR, "", 0, "no %s", ("answer",), None)
    for _ in range(5):
        complaints.handle(record)
    now[0] = COMPLAIN_EVERY_S
    complaints.handle(record)
    assert caplog.messages == [
        "traces are not sent: no answer (0 such lines were left out)",
        "traces are not sent: no answer (4 such lines were left out)",
    ]


def test_a_span_holds_a_bounded_number_of_events() -> None:
    span = span_of()
    for _ in range(2 * MAX_EVENTS):
        span.note("retry", 0)
    assert len(span.events) == MAX_EVENTS


def test_names_that_opentelemetry_has_are_spelt_as_it_spells_them() -> None:
    known = {
        value
        for module in (gen_ai_attributes, http_attributes, error_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    ours = [value for module in (names, replica_traces) for value in vars(module).values() if isinstance(value, str)]
    conventional = {value for value in ours if value.startswith(("http.", "gen_ai.", "error."))}
    assert len(conventional) > 8
    assert conventional - known == set()
