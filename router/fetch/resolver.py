"""Names of hosts to addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Protocol

from router.fetch.networks import IPAddress

LOOKUPS = 64
"""Threads for lookups. A lookup cannot be interrupted: slow name servers occupy these for longer than a request lasts,
and so they are not the threads that read images."""


class Resolver(Protocol):
    """Looks up names."""

    async def resolve(self, host: str) -> Sequence[IPAddress]:
        """Every address of ``host``, the one to try first at the beginning; none if it has none."""
        ...


class SystemResolver:
    """Asks the operating system."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="resolve")

    async def resolve(self, host: str) -> Sequence[IPAddress]:
        """See :class:`Resolver`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host)


def _look_up(host: str) -> Sequence[IPAddress]:
    try:
        answers = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return [ip_address(answer[4][0]) for answer in answers]
