"""The span of a whole request to a model, from when its body is there to the end of its answer."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from logs.trace_id import TRACE_ID
from router.asgi.middleware import REQUEST_ID_KEY
from router.tracing import names
from router.tracing.tracing import Tracing
from traces.current import CURRENT, RequestTrace, now_ns
from traces.span import Span


class TraceMiddleware:
    """ASGI middleware around the routes, within the one that gives requests their ids."""

    def __init__(self, app: ASGIApp, tracing: Tracing, paths: Collection[str]) -> None:
        """``paths``: those of the routes whose requests go to a model. Nothing else is traced."""
        self._app = app
        self._tracing = tracing
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self._paths or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        trace = self._begin(scope)
        if trace.recorder is None:
            await self._app(scope, receive, send)
        else:
            await self._recorded(trace, scope, receive, send)

    async def _recorded(self, trace: RequestTrace, scope: Scope, receive: Receive, send: Send) -> None:
        span = trace.span

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.attributes[names.STATUS] = message["status"]
                span.failed = message["status"] >= 500
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            trace.end(span)

    def _begin(self, scope: Scope) -> RequestTrace:
        context, caller = self._tracing.choice.begin(Headers(scope=scope).getlist("traceparent"))
        path = scope["path"]
        span = Span(f"POST {path}", context, caller, "server", now_ns())
        span.attributes |= {names.METHOD: "POST", names.ROUTE: path, names.REQUEST_ID: scope[REQUEST_ID_KEY]}
        trace = RequestTrace(span, self._tracing.recorder if context.sampled else None)
        CURRENT.set(trace)
        TRACE_ID.set(context.trace_id)
        return trace
