"""The trace of the request that is being worked on in this process, and the clock of its spans."""

from __future__ import annotations

import time
from contextvars import ContextVar

from traces.context import Context
from traces.span import Kind, Recorder, Span, Value


class RequestTrace:
    """One request: its first span in this process, and what makes further ones.

    Attributes:
        span: The first one.
        recorder: Takes the spans; None if the request is not sampled, so that none are recorded.
        called: How many replicas have been called for each of the answers that it needs, and the last of these calls.
            It needs several where several models are asked.
    """

    def __init__(self, span: Span, recorder: Recorder | None) -> None:
        self.span = span
        self.recorder = recorder
        self.called: dict[object, tuple[int, Context]] = {}

    def child(self, name: str, kind: Kind = "internal", began_ns: int | None = None) -> Span:
        """A span that is a part of the first one."""
        return child_of(self.span, name, kind, now_ns() if began_ns is None else began_ns)

    def end(self, span: Span, ended_ns: int | None = None) -> None:
        """Record a span, which ends now unless it says when."""
        span.ended_ns = now_ns() if ended_ns is None else ended_ns
        if self.recorder is not None:
            self.recorder.put(span)


CURRENT: ContextVar[RequestTrace | None] = ContextVar("request_trace", default=None)
"""None where traces are off, or no request is worked on. Like the request's id, it is set once and never reset."""

_OFFSET_NS = time.time_ns() - time.perf_counter_ns()


def now_ns() -> int:
    """Nanoseconds since 1970, on a clock that never goes back within a process."""
    return _OFFSET_NS + time.perf_counter_ns()


def child_of(parent: Span, name: str, kind: Kind, began_ns: int) -> Span:
    """A part of a span."""
    context = Context.new(parent.context.trace_id, sampled=parent.context.sampled)
    return Span(name, context, parent.context, kind, began_ns)


def note(event: str, **attributes: Value) -> None:
    """Something has happened to the request that is being worked on, if it is traced."""
    if (trace := CURRENT.get()) is not None:
        trace.span.note(event, now_ns(), **attributes)
