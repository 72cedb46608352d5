"""``POST /v1/chat/completions``: from the body's bytes to the last byte of the answer.

Owns the order of things, the deadline, and giving up when the client has left. Knows nothing of JSON's details, of
events' details, or of where the answer comes from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from router.asgi.body import read_body
from router.asgi.deadline import give_up, until, while_connected, within
from router.asgi.errors import json_response
from router.asgi.middleware import EVENT_STREAM, REQUEST_ID_KEY
from router.asgi.sse import keep_alive
from router.backends.base import Backend
from router.chat.events import EventWriter, sse, whole
from router.chat.request import Chat, read_chat
from router.chat.response import ResponseMeta, completion_json
from router.config import RouterConfig
from vlm.errors import EngineFailure, VlmError
from vlm.types import Chunk

logger = logging.getLogger(__name__)

INLINE_BYTES = 256 * 1024
"""Bodies up to this size are read on the event loop; larger ones, in a thread, so that others need not wait."""

READING_GRACE_S = 10.0
"""How long after the deadline a client may take to read what was written in time."""


class ChatCompletions:
    """The endpoint, as an ASGI application: it must see the client leave, whether it streams or not."""

    def __init__(self, backend: Backend, config: RouterConfig) -> None:
        self._backend = backend
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + self._config.request_timeout_s
        try:
            chat = await until(deadline, self._read(scope, receive))
        except ClientDisconnect:
            return
        await while_connected(receive, self._answer(chat, deadline, scope, send))

    async def _read(self, scope: Scope, receive: Receive) -> Chat:
        body = await read_body(scope, receive, self._config.max_body_bytes)
        if len(body) <= INLINE_BYTES:
            return read_chat(body, self._config)
        return await asyncio.to_thread(read_chat, body, self._config)

    async def _answer(self, chat: Chat, deadline: float, scope: Scope, send: Send) -> None:
        head = ResponseMeta(chat.model, scope[REQUEST_ID_KEY], self._config.system_fingerprint, chat.ignored)
        chunks = within(deadline, self._backend.generate(chat.model, chat.request))
        try:
            if chat.stream:
                await self._send_events(chunks, EventWriter(head, chat.shape, chat.include_usage), deadline, send)
            else:
                body = completion_json(await whole(chunks), head, chat.shape)
                await json_response(body, headers=_headers(chat.model))(scope, _nothing, send)
        except VlmError as error:
            raise chat.located(error) from error
        finally:
            await chunks.aclose()

    async def _send_events(
        self, chunks: AsyncGenerator[Chunk, None], writer: EventWriter, deadline: float, send: Send
    ) -> None:
        """Wait for the first chunk before anything is sent, so that an early error has its proper status.

        Not longer than a waiting stream may be silent, though: then the answer begins, and an error is an event.
        """
        first = asyncio.ensure_future(anext(chunks, None))
        try:
            await asyncio.wait({first}, timeout=self._config.keep_alive_s)
            if first.done() and first.result() is None:
                raise EngineFailure("The model gave no answer.")
            await self._send_started(sse(first, chunks, writer), writer, deadline, send)
        finally:
            await give_up(first)

    async def _send_started(
        self, started: AsyncGenerator[bytes, None], writer: EventWriter, deadline: float, send: Send
    ) -> None:
        events = keep_alive(started, self._config.keep_alive_s)
        try:
            async with asyncio.timeout_at(deadline + READING_GRACE_S):
                await _send_all(events, writer.head.model, send)
        except TimeoutError:
            logger.warning("%s: cut off, the client does not read its answer", writer.head.request_id)
        finally:
            await events.aclose()


async def _send_all(events: AsyncGenerator[bytes, None], model: str, send: Send) -> None:
    headers = {
        "content-type": f"{EVENT_STREAM}; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        **_headers(model),
    }
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    async for event in events:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _nothing() -> dict[str, str]:
    """The ``receive`` of an answer that reads no more."""
    return {"type": "http.disconnect"}


def _headers(model: str) -> dict[str, str]:
    return {"x-gigarouter-model": model.encode("latin-1", errors="replace").decode("latin-1")}
