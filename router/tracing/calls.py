"""A backend that records each call of the backend behind it as a span, and hands the trace on to whoever answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from router.asgi.errors import code_of
from router.backends.base import Backend, Before
from router.tracing import names
from traces.current import CURRENT, RequestTrace, now_ns
from vlm.errors import VlmError
from vlm.route import Route
from vlm.trace import Trace
from vlm.types import Chunk, Request


class TracedBackend(Before):
    """Stands behind what tries requests again, so that each attempt has a span. See :class:`Backend`."""

    def __init__(self, backend: Backend, target: str) -> None:
        """``target``: where the replicas are to send their spans."""
        super().__init__(backend)
        self._target = target

    def generate(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """See :class:`Backend`. What is not recorded costs no further generator."""
        trace = CURRENT.get()
        if trace is None:
            return self._backend.generate(model, request)
        if trace.recorder is None:
            return self._backend.generate(model, replace(request, trace=Trace(trace.span.context.header)))
        return self._recorded(model, request, trace)

    async def _recorded(self, model: str, request: Request, trace: RequestTrace) -> AsyncGenerator[Chunk, None]:
        call = _Call(trace, request.route)
        if self._backend.serves(model):
            call.span.attributes[names.MODEL] = model
        handed_on = replace(request, trace=Trace(call.span.context.header, self._target))
        try:
            async with aclosing(self._backend.generate(model, handed_on)) as chunks:
                async for chunk in chunks:
                    call.has_chunk()
                    yield chunk
        except VlmError as error:
            call.span.attributes[names.ERROR], call.span.failed = code_of(error), True
            raise
        finally:
            call.end()


class _Call:
    """One call of a replica; its span is linked to that of the call before it for the same answer."""

    def __init__(self, trace: RequestTrace, route: Route | None) -> None:
        self._trace = trace
        self._route = route
        self._taken = 0 if route is None else len(route.taken)
        self.span = trace.child(names.CALL, "client")
        number, self.span.link = trace.called.get(route, (0, None))
        trace.called[route] = (number + 1, self.span.context)
        self.span.attributes[names.ATTEMPT] = number + 1

    def has_chunk(self) -> None:
        """A part of the answer has come, perhaps the first."""
        if not self.span.events:
            self.span.note(names.FIRST, now_ns())

    def end(self) -> None:
        """The call has ended, or is given up."""
        if self._route is not None and len(self._route.taken) > self._taken:
            self.span.attributes[names.REPLICA] = self._route.taken[-1]
        self._trace.end(self.span)
