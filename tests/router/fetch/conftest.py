"""A port at which nobody may arrive."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.router.fetch.trap import Trap


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        yield Trap(listener)
