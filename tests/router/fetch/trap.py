"""A port at which nobody may arrive, and a record of where connections were made to, in the fetcher and below it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from httpcore2 import AnyIOBackend

from router.asgi.format import Requester
from router.config import RouterConfig
from router.fetch.fetcher import Fetcher
from router.fetch.resolver import SystemResolver
from vlm.errors import InvalidImage

CODES = {"invalid_image_url", "failed_to_download_image"}

_recorders: list[list[object]] = []


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        for recorder in _recorders:
            recorder.append(arguments[1])


sys.addaudithook(_record)  # stays until the process ends; it does nothing while nobody records


@contextmanager
def connections() -> Iterator[list[object]]:
    """The addresses that any socket of this process is connected to within the block, whoever asks for it."""
    seen: list[object] = []
    _recorders.append(seen)
    try:
        yield seen
    finally:
        _recorders.remove(seen)


class Spy(AnyIOBackend):
    """The real network, and where it was asked to go."""

    def __init__(self) -> None:
        self.connected: list[str] = []

    async def connect_tcp(self, host: str, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        self.connected.append(host)
        return await super().connect_tcp(host, *args, **kwargs)  # type: ignore[arg-type]


@dataclass
class Trap:
    """A port of this machine at which nobody may arrive."""

    listener: socket.socket

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def caught(self) -> int:
        """How many connections came."""
        count = 0
        while True:
            try:
                self.listener.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1


async def refused(url: str, trap: Trap) -> InvalidImage:
    """The error of the real fetcher, with the system's resolver and network."""
    spy = Spy()
    config = RouterConfig(image_ports=(80, 443, trap.port))
    with connections() as opened, pytest.raises(InvalidImage) as caught:
        await Fetcher(config, SystemResolver(), spy).fetch(url, Requester("me", lambda _bytes: None))
    assert (spy.connected, opened) == ([], [])
    assert trap.caught() == 0
    assert caught.value.code in CODES
    assert len(caught.value.message) < 250
    return caught.value
