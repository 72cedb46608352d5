"""Serves an ASGI application on a free port of this machine, in this process."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

KEPT_PORTS = range(10_000, 20_000)
"""Neither Ray's workers nor this machine's outgoing connections take these, which may do so between the moment at which
a port is found free and the one at which a server listens there."""


def kept_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.randrange(KEPT_PORTS.start, KEPT_PORTS.stop)  # not a secret
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


@contextmanager
def listening(app: Starlette) -> Iterator[str]:
    """Serve ``app`` until the end of the block.

    Yields:
        The address, ``http://127.0.0.1:PORT``.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
