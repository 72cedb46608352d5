"""A request's body as it arrives: within its size, its time and its pace, and within the bytes of all bodies.

The application gets it in one message, once all of it is there. So a slow client occupies nothing but a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from router.asgi.body import check_size, declared_bytes
from router.asgi.errors import BodyTooSlow
from router.asgi.room import Share
from router.config import RouterConfig

PACE_S = 10.0
"""Over how many seconds the pace of a body is measured: also the first pause that is forgiven."""


class Incoming:
    """The ``receive`` of a request, which knows whether all of the body has arrived and whether the client has left."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._announced = has_body(scope)
        self.ended = False
        self.left = False

    @property
    def unread(self) -> bool:
        """Whether there is a body of which a part has not arrived."""
        return self._announced and not self.ended

    async def __call__(self) -> Message:
        message = await self._receive()
        self.left = message["type"] == "http.disconnect"
        self.ended = self.ended or self.left or not message.get("more_body", False)
        return message

    async def disconnected(self) -> Message:
        """The message that says that the client has left; what arrives before is dropped."""
        while (message := await self())["type"] != "http.disconnect":
            pass
        return message

    async def drain(self) -> None:
        """Drop what is left of the body."""
        while not self.ended:
            await self()


def has_body(scope: Scope) -> bool:
    """Whether the headers of HTTP/1 announce a body."""
    return declared_bytes(scope) > 0 or "transfer-encoding" in Headers(scope=scope)


async def read_intake(scope: Scope, incoming: Incoming, share: Share, config: RouterConfig) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: It has more than ``max_body_bytes``, or its Content-Length says so.
        BodyTooSlow: It did not arrive in time, or too slowly.
        Overloaded: There is no room for it.
        starlette.requests.ClientDisconnect: The client left.
    """
    declared = declared_bytes(scope)
    check_size(declared, config.max_body_bytes)
    share.expect(declared)
    first = _part(await _first(incoming, config))
    if incoming.ended:
        check_size(len(first), config.max_body_bytes)
        share.grow(len(first))
        return first
    return await _rest(first, incoming, share, config)


async def _first(incoming: Incoming, config: RouterConfig) -> Message:
    try:
        async with asyncio.timeout(min(PACE_S, _longest_s(config))):
            return await incoming()
    except TimeoutError as error:
        raise _too_slow(config) from error


async def _rest(first: bytes, incoming: Incoming, share: Share, config: RouterConfig) -> bytes:
    pace = _Pace(config)
    body = bytearray()  # grows in place: of a large one, the kernel moves the pages and copies no bytes
    part = first
    try:
        async with asyncio.timeout_at(pace.next_check) as limit:
            while True:
                check_size(len(body) + len(part), config.max_body_bytes)
                share.grow(len(body) + len(part))
                body += part
                if incoming.ended:
                    return bytes(body)
                limit.reschedule(pace.after(len(part)))
                part = _part(await incoming())
    except TimeoutError as error:
        raise _too_slow(config) from error


class _Pace:
    """When enough of a body must have arrived."""

    def __init__(self, config: RouterConfig) -> None:
        self._now = asyncio.get_running_loop().time
        self._end = self._now() + _longest_s(config)
        self._needed = int(config.min_body_bytes_per_s * PACE_S)
        self._start()

    def after(self, arrived: int) -> float:
        """The time of the next check, now that ``arrived`` more bytes are here."""
        self._missing -= arrived
        if self._missing <= 0:
            self._start()
        return self.next_check

    def _start(self) -> None:
        self._missing = self._needed
        self.next_check = min(self._now() + PACE_S, self._end)


def _part(message: Mapping[str, Any]) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    part: bytes = message.get("body", b"")
    return part


def _longest_s(config: RouterConfig) -> float:
    return min(config.body_timeout_s, config.request_timeout_s)


def _too_slow(config: RouterConfig) -> BodyTooSlow:
    return BodyTooSlow(
        f"The request body arrived too slowly: it must be complete within {_longest_s(config):g} seconds, at "
        f"{config.min_body_bytes_per_s} bytes per second or more. Send a smaller image."
    )


class Arrived:
    """The ``receive`` of the application: the whole body in one message, and then only that the client has left."""

    def __init__(self, body: bytes, incoming: Incoming) -> None:
        self._body: bytes | None = body
        self._incoming = incoming

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._incoming.disconnected()
        body, self._body = self._body, None  # so that the bytes live only as long as the application needs them
        return {"type": "http.request", "body": body, "more_body": False}
