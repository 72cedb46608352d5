"""The endpoint that serves every request format: from the body's bytes to the last byte of the answer.

Holds the request to its deadline, gives up when the client has left, and reports each request to the meter once. Knows
neither the format of a body or an answer nor where answers come from.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import Generic

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from router.admission.hold import Hold
from router.admission.rule import Admission, Asked, Ticket
from router.asgi.body import read_body
from router.asgi.caller import caller_of, owner_of
from router.asgi.chunks import sse, whole
from router.asgi.deadline import give_up, until, while_connected, within
from router.asgi.errors import INTERNAL, json_response
from router.asgi.format import BuiltRequest, Format, ImageLoader, ParsedT, Requester
from router.asgi.metering import Meter, Tally, ignore
from router.asgi.middleware import EVENT_STREAM, FAILURE_KEY, REQUEST_ID_KEY
from router.asgi.outgoing import READING_GRACE_S
from router.asgi.room import SHARE_KEY, Share
from router.asgi.sse import kept_alive
from router.asgi.threads import in_thread_if_large
from router.backends.base import Backend
from router.config import RouterConfig
from vlm.errors import EngineFailure, VlmError
from vlm.types import Chunk, Request

logger = logging.getLogger(__name__)


class Endpoint(Generic[ParsedT]):
    """A route as an ASGI application: it must notice that the client leaves, whether the answer streams or not."""

    def __init__(
        self,
        request_format: Format[ParsedT],
        backend: Backend,
        images: ImageLoader,
        config: RouterConfig,
        meter: Meter = ignore,
        *,
        admission: Admission | None = None,
        hold: Hold | None = None,
    ) -> None:
        self._format = request_format
        self._backend = backend
        self._images = images
        self._config = config
        self._meter = meter
        self._admission = admission or admission_of(config, backend)
        self._hold = hold or hold_of(config, backend)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally = Tally(scope[REQUEST_ID_KEY])
        try:
            await self._serve(scope, receive, send, tally)
        except VlmError as error:
            tally.failed(error)
            raise
        except ClientDisconnect:
            raise
        except Exception:  # the middleware answers it; here it only has to be recorded
            tally.failed(INTERNAL)
            raise
        finally:
            self._meter(scope, tally.record())

    async def _serve(self, scope: Scope, receive: Receive, send: Send, tally: Tally) -> None:
        deadline = asyncio.get_running_loop().time() + self._config.request_timeout_s
        try:
            body = [await until(deadline, read_body(scope, receive, self._config.max_body_bytes))]
        except ClientDisconnect:
            return
        await while_connected(receive, self._answer(body, deadline, scope, send, tally))

    async def _answer(self, body: list[bytes], deadline: float, scope: Scope, send: Send, tally: Tally) -> None:
        """``body`` is emptied, so that nothing here keeps its megabytes until the answer ends."""
        requester = requester_of(scope)
        parsed = [await until(deadline, in_thread_if_large(len(body[0]), self._format.parse, body[0]))]
        size = len(body.pop())
        demand = self._format.demand(parsed[0])
        tally.asks(demand.model)
        remaining_s = deadline - asyncio.get_running_loop().time()
        batch = demand.priority == "batch"
        async with AsyncExitStack() as stack:
            started = await stack.enter_async_context(self._hold.waiting(demand.model, remaining_s))
            remaining_s = deadline - asyncio.get_running_loop().time()
            asked = Asked(demand.model, requester.caller, remaining_s, demand.generations, demand.beams, batch)
            ticket = stack.enter_context(self._admission.admitted(asked))
            tally.on_answer(partial(_answered, ticket, started))
            built = await until(deadline, self._build(parsed.pop(), size, scope[REQUEST_ID_KEY], requester))
            tally.read(built)
            request = replace(built.request, caller=requester.caller, request_id=scope[REQUEST_ID_KEY])
            await self._respond(request, built, deadline, scope, send, tally=tally)

    async def _respond(
        self, request: Request, built: BuiltRequest, deadline: float, scope: Scope, send: Send, *, tally: Tally
    ) -> None:
        answer = within(deadline, self._backend.generate(built.model, request))
        chunks = tally.watched(_located(answer, built))
        try:
            if built.stream:
                await self._send_events(chunks, built, deadline, scope, send)
            else:
                answered = built.response_json(await whole(chunks))
                await json_response(answered, headers=_headers(built))(scope, _disconnected, send)
        finally:
            await chunks.aclose()

    async def _build(self, parsed: ParsedT, body_size: int, request_id: str, requester: Requester) -> BuiltRequest:
        images = await self._images.load(parsed.images, requester)
        size = max(body_size, sum(map(len, images)))
        return await in_thread_if_large(size, self._format.build, parsed, images, request_id)

    async def _send_events(
        self, chunks: AsyncGenerator[Chunk, None], built: BuiltRequest, deadline: float, scope: Scope, send: Send
    ) -> None:
        """Wait for the first chunk before anything is sent, so that an early error has its proper status.

        Not longer than a waiting stream may be silent, though: then the answer begins, and an error is an event.
        """
        first = asyncio.ensure_future(anext(chunks, None))
        try:
            await asyncio.wait({first}, timeout=self._config.keep_alive_s)
            if first.done() and first.result() is None:
                raise EngineFailure("The model gave no answer.")
            writer = built.event_writer()
            scope[FAILURE_KEY] = writer.failure
            events = sse(first, chunks, writer)
            await self._send_until(deadline + READING_GRACE_S, events, built, send)
        finally:
            await give_up(first)

    async def _send_until(
        self, end: float, events: AsyncGenerator[bytes, None], built: BuiltRequest, send: Send
    ) -> None:
        try:
            async with asyncio.timeout_at(end):
                await _send_all(events, built, self._config.keep_alive_s, send)
        except TimeoutError:
            logger.warning("cut off, because the client does not read its answer")
        finally:
            await events.aclose()


def admission_of(config: RouterConfig, backend: Backend) -> Admission:
    """What lets requests in to ``backend``; all endpoints of a router share one."""
    return Admission(backend.capacity, config.max_queue_s, config.places_per_replica)


def hold_of(config: RouterConfig, backend: Backend) -> Hold:
    """What holds requests for a model without a replica; all endpoints of a router share one."""

    def replicas(model: str) -> int:
        return backend.capacity(model).replicas

    return Hold(config.max_held, config.cold_start_s, backend.asleep, replicas, time.monotonic)


def _answered(ticket: Ticket, started: Callable[[], None]) -> None:
    ticket.end(answered=True)
    started()


def requester_of(scope: Scope) -> Requester:
    """Whose request it is."""
    share: Share | None = scope.get(SHARE_KEY)  # there is none where no front has counted the body
    caller = caller_of(scope)
    return Requester(caller, share.hold if share else lambda _bytes: None, owner_of(scope, caller))


async def _located(chunks: AsyncGenerator[Chunk, None], built: BuiltRequest) -> AsyncGenerator[Chunk, None]:
    """The same chunks; their error names a field of the body, also if it is sent as an event. Closes ``chunks``."""
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk
        except VlmError as error:
            raise built.located(error) from error


async def _send_all(events: AsyncGenerator[bytes, None], built: BuiltRequest, keep_alive_s: float, send: Send) -> None:
    headers = {
        "content-type": f"{EVENT_STREAM}; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        **_headers(built),
    }
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def write(event: bytes) -> None:
        await send({"type": "http.response.body", "body": event, "more_body": True})

    async with kept_alive(write, keep_alive_s) as write_event:
        async for event in events:
            await write_event(event)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected() -> dict[str, str]:
    """The ``receive`` of a response: the body has been read, so there is no more to receive."""
    return {"type": "http.disconnect"}


def _headers(built: BuiltRequest) -> dict[str, str]:
    return {"x-gigarouter-model": built.model.encode("latin-1", errors="replace").decode("latin-1")}
