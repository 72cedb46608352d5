"""The spans of a replica: made when a request has ended, of the times that the engine has measured anyway.

A request says whether it is traced and where its spans go (:class:`vlm.trace.Trace`). One that is not costs a
comparison; OpenTelemetry is imported, in a thread, for the first one that is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

from logs.trace_id import TRACE_ID
from traces.context import Context, context_in
from traces.current import child_of, now_ns
from traces.exporter import Exporter, LazyExporter, resource_of
from traces.span import Recorder, Span
from traces.target import OFF, checked_target
from vlm.errors import EngineFailure, VlmError
from vlm.types import Chunk, Completion, Request, Timings

ANSWER, PREPARE, QUEUE, PREFILL, ENCODE, DECODE = "answer", "prepare", "queue", "prefill", "encode", "decode"
REQUEST_ID, IMAGES, ERROR = "gigarouter.request_id", "gigarouter.images", "error.type"
OUTPUT_TOKENS, CACHED_TOKENS = "gen_ai.usage.output_tokens", "gen_ai.usage.cache_read.input_tokens"

MAX_TARGETS = 4
"""Of one replica, each with a thread of its own: routers name one target, and another one after a change."""

Identity = Callable[[], Mapping[str, str]]


class ReplicaTraces:
    """Watches requests for the spans that they ask for."""

    def __init__(self, identity: Identity, make: Callable[[str], Recorder] | None = None) -> None:
        """Nothing is started before it is needed.

        Args:
            identity: Says which replica of which application this process is.
            make: Makes what takes the spans for a target.
        """
        self._make = make or (lambda target: LazyExporter(target, lambda to: Exporter(to, resource_of(**identity()))))
        self._recorders: dict[str, Recorder] = {}

    def chunks(self, request: Request, chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
        """The same chunks."""
        answer = self._begin(request)
        return chunks if answer is None else _watched(chunks, answer)

    async def completion(self, request: Request, work: Awaitable[Completion]) -> Completion:
        """The result of ``work``."""
        answer = self._begin(request)
        if answer is None:
            return await work
        try:
            completion = await work
            answer.completed(completion)
        except VlmError as error:
            answer.failed(error)
            raise
        finally:
            answer.end()
        return completion

    def stop(self) -> None:
        """Send what there is, within a bounded time."""
        for recorder in self._recorders.values():
            recorder.stop()

    def _begin(self, request: Request) -> _Answer | None:
        """What watches the request; None if it is not to be recorded."""
        trace = request.trace
        if trace is None or (parent := context_in([trace.parent])) is None:
            return None
        TRACE_ID.set(parent.trace_id)
        recorder = self._recorder(trace.target) if parent.sampled and trace.target else None
        return None if recorder is None else _Answer(request, parent, recorder)

    def _recorder(self, target: str) -> Recorder | None:
        if target not in self._recorders:
            if target == OFF or len(self._recorders) >= MAX_TARGETS:
                return None
            self._recorders[target] = self._make(checked_target(target))
        return self._recorders[target]


class _Answer:
    """One request to this replica."""

    def __init__(self, request: Request, parent: Context, recorder: Recorder) -> None:
        context = Context.new(parent.trace_id, sampled=True)
        self._span = Span(ANSWER, context, parent, "server", now_ns())
        images = (request.image is not None) + len(request.images)
        self._span.attributes |= {REQUEST_ID: request.request_id, IMAGES: images}
        self._recorder = recorder
        self._engine: list[Span] = []

    def completed(self, completion: Completion) -> None:
        """The engine has answered, a moment ago."""
        usage = completion.usage
        self._span.attributes |= {OUTPUT_TOKENS: usage.completion_tokens, CACHED_TOKENS: usage.cached_tokens}
        self._engine = engine_spans(self._span, completion.timings, now_ns())

    def failed(self, error: VlmError) -> None:
        """The request ends with an error."""
        self._span.attributes[ERROR] = type(error).__name__
        self._span.failed = isinstance(error, EngineFailure)

    def end(self) -> None:
        """The request has ended, or is given up."""
        self._span.ended_ns = now_ns()
        for span in (*self._engine, self._span):
            self._recorder.put(span)


def engine_spans(answer: Span, timings: Timings, ended_ns: int) -> list[Span]:
    """What the engine did for an answer that was complete at ``ended_ns``.

    Of a request with several generations the timings are the longest of each stage, so that the stages may overlap.
    """
    began_ns = max(answer.began_ns, ended_ns - _ns(timings.total_ms))
    arrived_ns = began_ns + _ns(timings.prepare_ms)
    started_ns, first_ns = arrived_ns + _ns(timings.queue_ms), arrived_ns + _ns(timings.first_token_ms)
    prefill = _part(answer, PREFILL, started_ns, first_ns)
    spans = [
        _part(answer, PREPARE, began_ns, arrived_ns),
        _part(answer, QUEUE, arrived_ns, started_ns),
        prefill,
        _part(answer, DECODE, first_ns, ended_ns),
    ]
    if timings.encode_ms:
        spans.append(_part(prefill, ENCODE, started_ns, started_ns + _ns(timings.encode_ms)))
    return spans


def _part(parent: Span, name: str, began_ns: int, ended_ns: int) -> Span:
    span = child_of(parent, name, "internal", began_ns)
    span.ended_ns = max(began_ns, ended_ns)
    return span


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)


async def _watched(chunks: AsyncGenerator[Chunk, None], answer: _Answer) -> AsyncGenerator[Chunk, None]:
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                if chunk.completion is not None:
                    answer.completed(chunk.completion)
                yield chunk
    except VlmError as error:
        answer.failed(error)
        raise
    finally:
        answer.end()
