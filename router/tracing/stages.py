"""A meter that completes the span of a request: what it was, how it ended, and its stages before the model is asked."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

from router.asgi.errors import code_of, row_of
from router.asgi.metering import RequestRecord
from router.tracing import names
from traces.current import CURRENT, RequestTrace, now_ns
from traces.span import Span, Value


class TraceMeter:
    """A :class:`~router.asgi.metering.Meter`: the stages are made into spans when all is over."""

    def __init__(self, is_served: Callable[[str], bool]) -> None:
        """``is_served`` says whether a name is that of a deployed model; any other may be anything."""
        self._is_served = is_served

    def __call__(self, scope: Scope, record: RequestRecord) -> None:  # noqa: ARG002  the protocol has it
        """See :class:`~router.asgi.metering.Meter`."""
        trace = CURRENT.get()
        if trace is None or trace.recorder is None:
            return
        self._describe(trace.span, record)
        _add_stages(trace, record)

    def _describe(self, span: Span, record: RequestRecord) -> None:
        said: dict[str, Value] = {
            names.PROVIDER: "gigarouter",
            names.OPERATION: "chat",
            names.OUTCOME: record.outcome,
            names.IMAGES: record.images,
            names.STREAM: record.streamed,
        }
        if record.model is not None and self._is_served(record.model):
            said[names.MODEL] = record.model
        if record.usage is not None:
            said[names.INPUT_TOKENS] = record.usage.image_tokens + record.usage.text_tokens
            said[names.OUTPUT_TOKENS] = record.usage.completion_tokens
            said[names.CACHED_TOKENS] = record.usage.cached_tokens
        if record.first_chunk_s is not None:
            said[names.FIRST_CHUNK] = record.first_chunk_s
        if record.error is not None:
            said[names.ERROR] = code_of(record.error)
            span.failed = row_of(record.error).status >= 500
        span.attributes |= said


def _add_stages(trace: RequestTrace, record: RequestRecord) -> None:
    """What was before the call of a replica; the stage in which a request ended without one carries its error."""
    began_ns = now_ns() - round(record.total_s * 1e9)
    moments = (record.asked_s, record.admitted_s, record.read_s)
    for name, begin, end in zip((names.ADMISSION, names.READ), moments, moments[1:], strict=False):
        if begin is None:
            return
        span = trace.child(name, began_ns=began_ns + round(begin * 1e9))
        if end is None and record.error is not None:
            span.attributes[names.ERROR] = code_of(record.error)
            span.failed = row_of(record.error).status >= 500
        trace.end(span, began_ns + round((record.total_s if end is None else end) * 1e9))
