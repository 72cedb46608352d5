"""Connections at which a request is refused before anything is made of it: no task, no message, no copy of its body.

The application is told of a request once it is known that its gate does not refuse it. That is known from the first
part of the body, where the model stands before the messages, or from all of a body that is not large::

    head complete      body arrives            decided
    |------------------|---- UNDECIDED_S at most ---|---> the application, or the refusal

What comes of a body after the refusal is dropped by the parser, and the connection goes on: a client that sends its
whole request before it reads never notices. It has as long for that as for the head of a next request.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import cast

from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from router.asgi.body import declared_bytes
from router.asgi.gate import Gate, named
from router.asgi.head import HeadProtocol
from router.config import RouterConfig

UNDECIDED_S = 0.25
"""How long a request may be held back for more of its body; then the application's own limits of time hold."""
HELD_BACK_BYTES = 256 * 1024
"""How much of its body: as much as one read from the network brings, so that a connection holds no more than before."""
DROPPED_BYTES = 1024 * 1024
"""The largest body whose rest is dropped; most images take less. Of a larger one, the connection is closed instead."""


class Door(HeadProtocol):
    """One connection. Without a gate, it is like those that it is derived from."""

    gate: Gate | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._held_back: ASGI3Application | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._size = 0  # announced of the body of what is held back

    def connection_lost(self, exc: Exception | None) -> None:
        self._taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held_back is not None and self._timer is None:
            self._timer = self.loop.call_later(UNDECIDED_S, self._go_on)

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self._held_back is not None:
            self._look()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._held_back is not None:
            self._look()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """What uvicorn calls for a request whose turn it is, as a rule when its head is complete."""
        if self.gate is None or cycle is not self.cycle or not self._is_refusable(cycle, self.gate):
            super()._start_asgi_task(cycle, app)
            return
        self._held_back = app
        if cycle.body or not cycle.more_body:
            self._look()

    def _is_refusable(self, cycle: RequestResponseCycle, gate: Gate) -> bool:
        """Whether it may be refused here, and in a way that leaves the connection as it should be.

        Not where the client waits to be told to send the body, where the connection ends anyway, or where answers to a
        web page need headers that only the front knows.
        """
        scope = cast("Scope", cycle.scope)
        if not gate.may_refuse(scope) or not cycle.keep_alive or cycle.waiting_for_100_continue:
            return False
        self._size = declared_bytes(scope)
        return 0 < self._size <= DROPPED_BYTES and not _has_origin(cycle)

    def _look(self) -> None:
        """Decide, if that can be done by what has arrived."""
        cycle, gate = self.cycle, self.gate
        assert gate is not None, "without one, nothing is held back"
        size = len(cycle.body)
        whole = not cycle.more_body or size >= self._size
        name = named(cycle.body, whole=whole)
        if name is None and not whole and size <= HELD_BACK_BYTES:
            self.flow.resume_reading()
            return
        # What a client does not read is not to pile up here: its answers wait where uvicorn makes them wait.
        if name is None or self.flow.write_paused:
            self._go_on()
            return
        # In a context of its own, so that the next request does not inherit its id.
        refusal = copy_context().run(gate.refusal, cast("Scope", cycle.scope), name)
        if refusal is None:
            self._go_on()
        else:
            self._refuse(cycle, refusal)

    def _go_on(self) -> None:
        if (app := self._taken()) is not None:
            super()._start_asgi_task(self.cycle, app)

    def _refuse(self, cycle: RequestResponseCycle, answer: bytes) -> None:
        self._taken()
        cycle.response_started = cycle.response_complete = True
        cycle.body = bytearray()
        self.transport.write(answer)
        self.on_response_complete()

    def _taken(self) -> ASGI3Application | None:
        """What was held back, which is so no more."""
        app, self._held_back = self._held_back, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return app


def _has_origin(cycle: RequestResponseCycle) -> bool:
    return any(name == b"origin" for name, _ in cycle.scope["headers"])


def door(config: RouterConfig, gate: Gate | None = None) -> type[Door]:
    """The class of connections with the limits of ``config``; uvicorn makes them itself, without arguments of ours."""
    return type("ConfiguredDoor", (Door,), {"config_of_router": config, "gate": gate})
