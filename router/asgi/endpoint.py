"""The endpoint that serves every request format: from the body's bytes to the last byte of the answer.

Holds the request to its deadline, gives up when the client has left, and reports each request to the meter once. Knows
neither the format of a body or an answer nor where answers come from.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from router.admission.hold import Hold
from router.admission.rule import Admission, Asked, Ticket
from router.asgi.billing import MOST_TOKENS, Bill, Estimate, Line, access_of, bill_of
from router.asgi.body import read_body
from router.asgi.caller import caller_of, owner_of
from router.asgi.chunks import sse, whole
from router.asgi.deadline import give_up, until, while_connected, within
from router.asgi.errors import INTERNAL, json_response
from router.asgi.format import (
    BuiltRequest,
    Composition,
    Conductor,
    Demand,
    Format,
    ImageLoader,
    ImageReference,
    ParsedT,
    Requester,
)
from router.asgi.metering import Meter, Tally, ignore, tokens_of
from router.asgi.middleware import EVENT_STREAM, FAILURE_KEY, REQUEST_ID_KEY
from router.asgi.once import Once
from router.asgi.outgoing import READING_GRACE_S
from router.asgi.room import SHARE_KEY, Share
from router.asgi.sse import kept_alive
from router.asgi.threads import in_thread_if_large
from router.backends.base import Backend
from router.charges import charge_of
from router.config import RouterConfig
from vlm.errors import EngineFailure, VlmError
from vlm.types import Chunk

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
        conductor: Conductor[ParsedT] | None = None,
    ) -> None:
        self._format = request_format
        self._backend = backend
        self._images = images
        self._config = config
        self._meter = meter
        self._admission = admission or admission_of(config, backend)
        self._hold = hold or hold_of(config, backend)
        self._conductor = conductor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally = Tally(scope[REQUEST_ID_KEY])
        bill = bill_of(scope, scope[REQUEST_ID_KEY])
        try:
            await self._serve(scope, receive, send, tally, bill)
        except VlmError as error:
            tally.failed(error)
            raise
        except ClientDisconnect:
            raise
        except Exception:  # the middleware answers it; here it only has to be recorded
            tally.failed(INTERNAL)
            raise
        finally:
            record = tally.record()
            bill.end(tally.paid_as)
            self._meter(scope, record)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, tally: Tally, bill: Bill) -> None:
        deadline = asyncio.get_running_loop().time() + self._config.request_timeout_s
        try:
            body = [await until(deadline, read_body(scope, receive, self._config.max_body_bytes))]
        except ClientDisconnect:
            return
        await while_connected(receive, self._answer(body, _Exchange(scope, send, deadline, tally, bill)))

    async def _answer(self, body: list[bytes], exchange: _Exchange) -> None:
        """``body`` is emptied, so that nothing here keeps its megabytes until the answer ends."""
        deadline = exchange.deadline
        parsed = [await until(deadline, in_thread_if_large(len(body[0]), self._format.parse, body[0]))]
        size = len(body.pop())
        if self._conductor is not None:
            composing = self._conductor.composition(parsed[0], exchange.request_id, sees_of(exchange.scope))
            composition = await until(deadline, composing)
            if composition is not None:
                await self._answer_together(composition, parsed.pop(), size, exchange)
                return
        demand = self._format.demand(parsed[0])
        exchange.tally.asks(demand.model)
        requester = requester_of(exchange.scope)
        async with self._let_in(demand, requester, exchange, partial(_loads, parsed[0].images)) as part:
            exchange.tally.let_in()
            images = self._images.load(parsed[0].images, requester)
            built = await until(deadline, self._build(parsed.pop(), images, size, exchange.request_id))
            part.ticket.loaded()
            exchange.tally.read(built)
            await self._respond(self._asked(built, requester, exchange.request_id, part), built, exchange)

    async def _answer_together(
        self, composition: Composition[ParsedT], parsed: ParsedT, size: int, exchange: _Exchange
    ) -> None:
        """Images are loaded once, when the first of the models has let the request in."""
        shown, requester, request_id = composition.shown, requester_of(exchange.scope), exchange.request_id
        exchange.tally.asks(shown.model)
        images = Once(partial(self._images.load, parsed.images, requester))

        def loads() -> bool:
            return not images.done and _loads(parsed.images)

        async def ask(alone: ParsedT) -> AsyncGenerator[Chunk, None]:
            async with self._let_in(self._format.demand(alone), requester, exchange, loads) as part:
                exchange.tally.let_in()
                built = await self._build(alone, images.get(), size, request_id)
                part.ticket.loaded()
                composition.saw(built)
                exchange.tally.read(shown)
                async with aclosing(self._asked(built, requester, request_id, part)) as chunks:
                    async for chunk in chunks:
                        yield chunk

        try:
            answer = composition.chunks(ask, exchange.deadline)
            await self._respond(answer, shown, replace(exchange, is_composed=True))
        finally:
            await images.end()

    @asynccontextmanager
    async def _let_in(
        self, demand: Demand, requester: Requester, exchange: _Exchange, loads: Callable[[], bool]
    ) -> AsyncIterator[_Part]:
        """The request takes its places at the model as long as the block lasts, or until the model has answered."""
        deadline, now = exchange.deadline, asyncio.get_running_loop().time
        batch, estimate = demand.priority == "batch", estimate_of(demand)
        if self._backend.serves(demand.model):  # of another, the backend says that it is not there
            exchange.bill.check(estimate)
        async with self._hold.waiting(demand.model, deadline - now()) as started:
            left_s = deadline - now()
            asked = Asked(demand.model, requester.caller, left_s, demand.generations, demand.beams, batch, loads())
            with self._admission.admitted(asked) as ticket:
                line = await until(deadline, exchange.bill.let_in(estimate, deadline - now()))
                try:
                    yield _Part(demand, line, ticket, started)
                finally:
                    line.ended()

    def _asked(
        self, built: BuiltRequest, requester: Requester, request_id: str, part: _Part
    ) -> AsyncGenerator[Chunk, None]:
        request = replace(built.request, caller=requester.caller, request_id=request_id)
        return _located(self._backend.generate(built.model, request), built, part)

    async def _build(
        self, parsed: ParsedT, loading: Awaitable[Sequence[bytes]], body_size: int, request_id: str
    ) -> BuiltRequest:
        images = await loading
        size = max(body_size, sum(map(len, images)))
        return await in_thread_if_large(size, self._format.build, parsed, images, request_id)

    async def _respond(self, answer: AsyncGenerator[Chunk, None], built: BuiltRequest, exchange: _Exchange) -> None:
        chunks = exchange.tally.watched(within(exchange.deadline, answer))
        try:
            if built.stream:
                async with aclosing(written_last(chunks, exchange.bill)) as written:
                    await self._send_events(written, built, exchange)
            else:
                response = json_response(built.response_json(await whole(chunks)), headers=_headers(built))
                exchange.bill.written()
                await response(exchange.scope, _disconnected, exchange.send)
        finally:
            await chunks.aclose()

    async def _send_events(self, chunks: AsyncGenerator[Chunk, None], built: BuiltRequest, exchange: _Exchange) -> None:
        """Wait for the first chunk before anything is sent, so that an early error has its proper status.

        Not longer than a waiting stream may be silent, though: then the answer begins, and an error is an event.
        """
        first = asyncio.ensure_future(anext(chunks, None))
        try:
            await asyncio.wait({first}, timeout=self._config.keep_alive_s)
            if first.done() and first.result() is None:
                raise EngineFailure("The model gave no answer.")
            headers = {} if exchange.is_composed and not first.done() else _headers(built)  # whose it will be is open
            writer = built.event_writer()
            exchange.scope[FAILURE_KEY] = writer.failure
            await self._send_until_late(sse(first, chunks, writer), headers, exchange)
        finally:
            await give_up(first)

    async def _send_until_late(
        self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str], exchange: _Exchange
    ) -> None:
        try:
            async with asyncio.timeout_at(exchange.deadline + READING_GRACE_S):
                await _send_all(events, headers, self._config.keep_alive_s, exchange)
        except TimeoutError:
            logger.warning("cut off, because the client does not read its answer")
        finally:
            await events.aclose()


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request and the way back to its client.

    Attributes:
        scope, send: ASGI's.
        deadline: In seconds on the event loop's clock.
        tally: Learns what becomes of it.
        bill: What is owed for it.
        is_composed: Whether several models have to do with it.
    """

    scope: Scope
    send: Send
    deadline: float
    tally: Tally
    bill: Bill
    is_composed: bool = False

    @property
    def request_id(self) -> str:
        """The id in the response's headers."""
        request_id: str = self.scope[REQUEST_ID_KEY]
        return request_id


def admission_of(config: RouterConfig, backend: Backend) -> Admission:
    """What lets requests in to ``backend``; all endpoints of a router share one."""
    return Admission(backend.capacity, config.max_queue_s, config.places_per_replica)


def hold_of(config: RouterConfig, backend: Backend) -> Hold:
    """What holds requests for a model without a replica; all endpoints of a router share one."""

    def replicas(model: str) -> int:
        return backend.capacity(model).replicas

    return Hold(config.max_held, config.cold_start_s, backend.asleep, replicas, time.monotonic)


@dataclass(frozen=True, slots=True)
class _Part:
    """A request to one model that has been let in.

    Attributes:
        demand: What it asks for.
        line: What is owed for it.
        ticket: Its places.
        started: To be called when the model has answered, for whoever waits for a first replica.
    """

    demand: Demand
    line: Line
    ticket: Ticket
    started: Callable[[], None]

    def saw(self, chunk: Chunk) -> None:
        """A part of the answer has come; its places are free with the last, however long the client takes to read."""
        self.line.arrived(tokens_of(chunk))
        if chunk.completion is not None:
            demand = self.demand
            batch = demand.priority == "batch"
            self.line.answered(charge_of(demand.model, chunk.completion, demand.images, batch=batch))
            self.ticket.end(answered=True)
            self.started()


def _loads(images: Iterable[ImageReference]) -> bool:
    """Whether any is downloaded. Uploaded files come from our own store, which nobody else can slow down."""
    return any(one.is_downloaded for one in images)


def estimate_of(demand: Demand) -> Estimate:
    """The most that a request can do. Clients may set any limit, but a model ends an answer with its context."""
    tokens = demand.generations * min(demand.max_tokens or MOST_TOKENS, MOST_TOKENS)
    return Estimate(demand.model, demand.images, demand.tasks, tokens, batch=demand.priority == "batch")


def sees_of(scope: Scope) -> Callable[[str], bool]:
    """Whether the key of a request may ask a model of this name."""
    access = access_of(scope)
    return (lambda _: True) if access is None else access.sees


def requester_of(scope: Scope) -> Requester:
    """Whose request it is."""
    share: Share | None = scope.get(SHARE_KEY)  # there is none where no front has counted the body
    caller = caller_of(scope)
    return Requester(caller, share.hold if share else lambda _bytes: None, owner_of(scope, caller))


async def _located(
    chunks: AsyncGenerator[Chunk, None], built: BuiltRequest, part: _Part
) -> AsyncGenerator[Chunk, None]:
    """The same chunks, of which ``part`` learns; their error names a field of the body, also if it is sent as an event.

    Closes ``chunks``.
    """
    part.line.began()
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                part.saw(chunk)
                yield chunk
        except VlmError as error:
            part.line.failed()
            raise built.located(error) from error


async def written_last(chunks: AsyncGenerator[Chunk, None], bill: Bill) -> AsyncGenerator[Chunk, None]:
    """The same chunks; what is owed is written down before the last one is passed on. Closes ``chunks``."""
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.completion is not None:
                bill.written()
            yield chunk


async def _send_all(
    events: AsyncGenerator[bytes, None], known: Mapping[str, str], keep_alive_s: float, exchange: _Exchange
) -> None:
    headers = {
        "content-type": f"{EVENT_STREAM}; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        **known,
    }
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    send, now = exchange.send, asyncio.get_running_loop().time
    await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def write(event: bytes) -> None:
        began = now()
        await send({"type": "http.response.body", "body": event, "more_body": True})
        exchange.tally.waited_for_client(now() - began)

    async with kept_alive(write, keep_alive_s) as write_event:
        async for event in events:
            await write_event(event)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected() -> dict[str, str]:
    """The ``receive`` of a response: the body has been read, so there is no more to receive."""
    return {"type": "http.disconnect"}


def _headers(built: BuiltRequest) -> dict[str, str]:
    return {"x-gigarouter-model": built.model.encode("latin-1", errors="replace").decode("latin-1")}
