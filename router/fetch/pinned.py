"""The connection step: to the addresses that were checked, and to nothing else.

httpcore2 asks a network backend to connect to a host. This one does not look at the host's name, so that it cannot be
resolved a second time with another result. It also counts what comes in, and closes what it has opened.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any

import anyio
from httpcore2 import SOCKET_OPTION, AsyncNetworkBackend, AsyncNetworkStream, ConnectError, ConnectTimeout, ReadError

from router.fetch.networks import IPAddress

MAX_ADDRESSES = 4
"""How many addresses of a host are tried: a name may have hundreds, none of which answers."""


HEAD_READ_BYTES = 4 * 1024
"""How many bytes are read at once before the headers are complete. httpcore2 passes over responses that only announce
another one (status 1xx) without a pause, and all other requests wait meanwhile: a few milliseconds for this many."""


class Allowance:
    """How many bytes may still come in on a connection, with headers and whatever frames the body.

    Args:
        head: Bytes until the headers are complete.
    """

    def __init__(self, head: int) -> None:
        self.left = head
        self.at_once = HEAD_READ_BYTES

    def begin_body(self, size: int) -> None:
        """The headers are complete, and ``size`` bytes may follow."""
        self.left = size
        self.at_once = size

    def take(self, size: int) -> None:
        """Raises ``ReadError`` once more has come in than is allowed."""
        self.left -= size
        if self.left < 0:
            raise ReadError("more bytes than are allowed")


class PinnedBackend(AsyncNetworkBackend):
    """Connects to the first of ``addresses`` that answers.

    Args:
        network: Makes the connections.
        addresses: The addresses that were checked; at least one.
        allowance: What the connection may bring in.
    """

    def __init__(self, network: AsyncNetworkBackend, addresses: Sequence[IPAddress], allowance: Allowance) -> None:
        self._network = network
        self._addresses = _alternating(addresses)[:MAX_ADDRESSES]
        self._allowance = allowance
        self._opened: AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the addresses stand for it
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore2's signature
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """See httpcore2."""
        *others, last = self._addresses
        for address in others:
            try:
                return await self._open(str(address), port, timeout, local_address, socket_options)
            except (ConnectError, ConnectTimeout):
                continue
        return await self._open(str(last), port, timeout, local_address, socket_options)

    async def _open(self, *args: Any) -> AsyncNetworkStream:
        self._opened = await self._network.connect_tcp(*args)
        return _CountedStream(self._opened, self._allowance)

    async def aclose(self) -> None:
        """Close the connection, also where it was given up within the TLS handshake, when httpcore2 would leave it."""
        if self._opened is not None:
            with anyio.CancelScope(shield=True):
                await self._opened.aclose()


def _alternating(addresses: Sequence[IPAddress]) -> Sequence[IPAddress]:
    """IPv6 and IPv4 in turn, so that a host with many addresses is reached where only one of the two works."""
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    return [address for address in chain(*zip_longest(first, second)) if address is not None]


class _CountedStream(AsyncNetworkStream):
    """A stream whose bytes are taken from an allowance."""

    def __init__(self, stream: AsyncNetworkStream, allowance: Allowance) -> None:
        self._stream = stream
        self._allowance = allowance

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        data = await self._stream.read(min(max_bytes, self._allowance.at_once), timeout)
        self._allowance.take(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> AsyncNetworkStream:
        return _CountedStream(
            await self._stream.start_tls(ssl_context, server_hostname, timeout),
            self._allowance,
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
