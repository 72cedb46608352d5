"""Hands spans to OpenTelemetry's SDK, which sends them in batches from a thread of its own.

The only module that imports OpenTelemetry, and only when an :class:`Exporter` is made.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from traces.context import Context
from traces.span import Kind, Span
from traces.target import CONSOLE, endpoint_of, is_installed, what_is_missing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

STOP_S = 3.0
"""Seconds that the last spans have to be sent when a process ends: a collector that is down is not to hold it up."""

MAX_PENDING = 512
"""Spans that are kept while the SDK is being imported, which takes less than a second."""

COMPLAIN_EVERY_S = 60.0
"""A collector that is down fails every batch, and each is tried several times."""

SDK_LOGGERS = ("opentelemetry.exporter.otlp", "opentelemetry.sdk._shared_internal", "opentelemetry.sdk.trace")


class Exporter:
    """A :class:`~traces.span.Recorder` that sends spans to a target.

    The queue has a fixed size (2,048, or what ``OTEL_BSP_MAX_QUEUE_SIZE`` says); the oldest span makes way.
    """

    def __init__(self, target: str, resource: Mapping[str, str], sender: SpanExporter | None = None) -> None:
        """Start the thread.

        Args:
            target: As in :mod:`traces.target`, and not ``off``.
            resource: What every span says about this process, by the names of OpenTelemetry.
            sender: Sends the spans in place of the target's own.
        """
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        complain_rarely()
        self._sender = sender or _sender_to(target)
        self._convert = _converter(Resource.create({**resource}))
        self._batches = BatchSpanProcessor(self._sender)
        self._stopped = False

    def put(self, span: Span) -> None:
        """See :class:`~traces.span.Recorder`."""
        if not self._stopped:
            self._batches.on_end(self._convert(span))

    def stop(self) -> None:
        """See :class:`~traces.span.Recorder`; it takes at most STOP_S. Stopping again does nothing."""
        if self._stopped:
            return
        self._stopped = True
        stopping = threading.Thread(target=self._batches.shutdown, name="traces-stop", daemon=True)
        stopping.start()
        stopping.join(STOP_S)
        if stopping.is_alive():
            self._sender.shutdown()  # ends its pauses between attempts


class LazyExporter:
    """The same, made in a thread when its first span comes, so that only those import the SDK who need it."""

    def __init__(self, target: str, make: Callable[[str], Exporter]) -> None:
        self._target = target
        self._make = make
        self._pending: deque[Span] = deque(maxlen=MAX_PENDING)
        self._making: threading.Thread | None = None
        self._made: Exporter | None = None
        self._lock = threading.Lock()

    def put(self, span: Span) -> None:
        """See :class:`~traces.span.Recorder`."""
        with self._lock:
            made = self._made
            if made is None:
                self._pending.append(span)
                if self._making is None:
                    self._making = threading.Thread(target=self._start, name="traces-start", daemon=True)
                    self._making.start()
        if made is not None:
            made.put(span)

    def stop(self) -> None:
        """See :class:`~traces.span.Recorder`."""
        making = self._making
        if making is not None:
            making.join(STOP_S)
        if self._made is not None:
            self._made.stop()

    def _start(self) -> None:
        if not is_installed(self._target):
            log.warning("no spans are sent from here: %s", what_is_missing(self._target))
            return
        made = self._make(self._target)
        with self._lock:
            self._made, pending = made, [*self._pending]
            self._pending.clear()
        for span in pending:
            made.put(span)


class Complaints(logging.Handler):
    """Passes what the SDK logs on to our own log: one line in COMPLAIN_EVERY_S, with the number of those left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._last: float | None = None
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        now = self._clock()
        if self._last is not None and now - self._last < COMPLAIN_EVERY_S:
            self._left_out += 1
            return
        self._last, left_out, self._left_out = now, self._left_out, 0
        log.warning("traces are not sent: %s (%d such lines were left out)", record.getMessage()[:500], left_out)


COMPLAINTS = Complaints()


def complain_rarely() -> None:
    """Have the SDK's own lines go through :data:`COMPLAINTS` alone."""
    for name in SDK_LOGGERS:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.addHandler(COMPLAINTS)  # once, however often this is called


def resource_of(application: str = "", replica: str = "") -> dict[str, str]:
    """What every span says about a replica of an application: ``OTEL_RESOURCE_ATTRIBUTES`` may add to it."""
    name = f"gigarouter-{application}" if application else "gigarouter"
    own = {"service.namespace": "gigarouter", "service.name": name, "host.name": platform.node()}
    return {**own, "service.instance.id": replica} if replica else own


def _sender_to(target: str) -> SpanExporter:
    if target == CONSOLE:
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\n")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint_of(target))


def _converter(resource: Resource) -> Callable[[Span], ReadableSpan]:
    """What makes the SDK's form of a span that has ended.

    The SDK would rather have a span begun and ended by its tracer, which takes twenty microseconds more of an event
    loop, and makes ids of its own.
    """
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

    sampled = TraceFlags(TraceFlags.SAMPLED)
    statuses = {True: Status(StatusCode.ERROR), False: Status(StatusCode.UNSET)}
    kinds: dict[Kind, SpanKind] = {
        "server": SpanKind.SERVER,
        "client": SpanKind.CLIENT,
        "internal": SpanKind.INTERNAL,
    }
    scope = InstrumentationScope("gigarouter", _version())

    def context_of(context: Context, *, remote: bool) -> SpanContext:
        return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), remote, sampled)

    def convert(span: Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=context_of(span.context, remote=False),
            parent=None if span.parent is None else context_of(span.parent, remote=span.kind == "server"),
            resource=resource,
            attributes=span.attributes,
            events=[Event(one.name, one.attributes, one.at_ns) for one in span.events],
            links=[] if span.link is None else [Link(context_of(span.link, remote=False))],
            kind=kinds[span.kind],
            status=statuses[span.failed],
            start_time=span.began_ns,
            end_time=max(span.began_ns, span.ended_ns),
            instrumentation_scope=scope,
        )

    return convert


def _version() -> str:
    try:
        return version("gigarouter")
    except PackageNotFoundError:  # run from its sources
        return "0"
