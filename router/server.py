"""The router's own HTTP server, for a system on one machine: clients then reach the router without Serve's proxy.

A proxy reads every request, pickles it and sends it on to the router's process, at half of what the router's own work
costs. With several nodes or replicas something has to spread the requests; with one replica there is nothing to spread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from router.asgi.door import door
from router.asgi.gate import Gate
from router.config import RouterConfig
from vlm.errors import ConfigError

KEEP_ALIVE_S = 75
"""How long an idle connection stays open."""


class _UvicornServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the process, which is Ray's; uvicorn would install handlers of its own."""
        yield


class HttpServer:
    """Serves an ASGI application at ``config.listen`` in the running event loop."""

    def __init__(self, app: ASGIApp, config: RouterConfig, gate: Gate | None = None) -> None:
        """Of ``app``; its ``gate`` refuses requests before they reach it."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # our own access log has what is needed
        self._address = config.listen_address
        self._server = _UvicornServer(
            uvicorn.Config(
                app,
                http=door(config, gate),
                timeout_keep_alive=KEEP_ALIVE_S,
                lifespan="on",  # the sweeper of uploaded files and the count of replicas are part of it
                access_log=False,
                log_config=None,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen. Requests are answered as soon as the event loop runs.

        Raises:
            ConfigError: The address cannot be listened at.
        """
        host, port = self._address
        try:
            listening = socket.create_server((host, port))
        except OSError as error:
            raise ConfigError(f"The router cannot listen on {host}:{port}: {error.strerror}.", "listen") from error
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listening]))

    @property
    def is_serving(self) -> bool:
        """Whether requests are accepted."""
        return self._serving is not None and not self._serving.done()

    def stop(self) -> None:
        """Accept no more connections; running requests are finished."""
        self._server.should_exit = True
