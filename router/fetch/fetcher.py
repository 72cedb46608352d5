"""Downloads an image: which host it may come from, what is asked of it, and how much it may answer.

Every redirect is followed by hand and treated like a URL of the client. httpcore2 speaks HTTP and nothing more: it has
no proxies, cookies or .netrc, follows no redirects and decompresses nothing. No message repeats what a server said.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from functools import cached_property

from httpcore2 import (
    URL,
    AnyIOBackend,
    AsyncHTTPConnection,
    AsyncNetworkBackend,
    NetworkError,
    ProtocolError,
    Response,
    TimeoutException,
    default_ssl_context,
)

from router.asgi.format import Requester
from router.config import RouterConfig
from router.fetch.networks import AddressRules, IPAddress
from router.fetch.pinned import Allowance, PinnedBackend
from router.fetch.resolver import Resolver, SystemResolver
from router.fetch.turns import Turns
from router.fetch.url import ImageUrl, parse_url, redirected
from vlm.errors import InvalidImage

MAX_REDIRECTS = 3
CONNECT_S = 3.0
"""Seconds for a connection to one address, and again for its TLS handshake."""
READ_S = 5.0
"""Seconds of silence after which a server is given up."""
MAX_HEAD_BYTES = 32 * 1024
"""Bytes that may come in before the headers of the answer are complete; those of most servers have less than 4 KiB.
Responses that only announce another one (status 1xx) count, and so may a few KiB of the body."""
MAX_SMALL_PARTS = 1000
"""Parts of a body, each of which takes a step in Python, beyond one for every 512 bytes: a TCP segment has more, but a
server may send chunks of one byte."""
PART_BYTES = 512
REDIRECTS = (301, 302, 303, 307, 308)

HEADERS = (
    (b"User-Agent", b"gigarouter"),
    (b"Accept", b"image/png, image/jpeg, image/webp, image/gif, image/bmp"),
    (b"Accept-Encoding", b"identity"),
    (b"Connection", b"close"),
)

Hold = Callable[[int], None]


class Fetcher:
    """Downloads images within the limits of ``config``.

    Args:
        config: Which hosts, ports and networks are allowed, and how much at once.
        resolver: Looks up names; the operating system by default.
        network: Makes connections to addresses; asyncio by default.
        tls: Checks certificates; by default with the authorities that the operating system trusts, or those in the
            file that ``SSL_CERT_FILE`` names.
    """

    def __init__(
        self,
        config: RouterConfig,
        resolver: Resolver | None = None,
        network: AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._config = config
        self._resolver = resolver or SystemResolver()
        self._network = network or AnyIOBackend()
        self._given_tls = tls
        self._rules = AddressRules(config.allowed_image_networks)
        self.turns = Turns(
            config.max_image_downloads, config.max_image_downloads_per_host, config.max_image_downloads_per_caller
        )

    async def fetch(self, text: str, requester: Requester) -> bytes:
        """What the URL ``text`` leads to, unchecked.

        Args:
            text: What the client wrote.
            requester: Who asks, so that one caller does not take all downloads, and what counts the bytes.

        Raises:
            InvalidImage: The URL is not allowed, or nothing could be downloaded; without a path of a field.
            Overloaded: Too many downloads are running, or there is no room for the bytes.
        """
        url = parse_url(text)
        left_s = self._config.image_download_timeout_s
        clock = asyncio.get_running_loop().time
        for _ in range(1 + MAX_REDIRECTS):
            self._check_host(url)
            async with self.turns.turn(requester.caller, url.host):
                began = clock()
                answer = await self._get_within(left_s, url, requester.hold)
                left_s -= clock() - began
            if isinstance(answer, bytes):
                return answer
            url = answer
        raise _failed(f"its server redirects more than {MAX_REDIRECTS} times")

    def _check_host(self, url: ImageUrl) -> None:
        if url.port not in self._config.image_ports:
            ports = ", ".join(map(str, self._config.image_ports))
            raise InvalidImage(f"Images are downloaded from these ports only: {ports}.", code="invalid_image_url")
        allowed = self._config.allowed_image_hosts
        if self._config.image_urls == "allowed" and not any(_matches(url.host, pattern) for pattern in allowed):
            raise InvalidImage("This server does not download images from that host.", code="invalid_image_url")

    async def _get_within(self, seconds: float, url: ImageUrl, hold: Hold) -> bytes | ImageUrl:
        try:
            async with asyncio.timeout(seconds):
                return await self._get(url, await self._addresses(url), hold)
        except (TimeoutError, TimeoutException) as error:
            raise _failed("its server takes too long") from error
        except (NetworkError, ProtocolError, OSError) as error:
            raise _failed("no connection to its server is possible, or it does not speak HTTP") from error

    async def _addresses(self, url: ImageUrl) -> Sequence[IPAddress]:
        """Where to connect to. A name with one address that is not allowed is not used at all.

        A name without addresses gets the same answer, so that nobody learns which names exist in a private network.
        """
        if url.address is not None:
            if not self._rules.permits(url.address):
                raise InvalidImage("The image's URL has an address that is not public.", code="invalid_image_url")
            return [url.address]
        addresses = await self._resolver.resolve(url.host)
        if not addresses or not all(map(self._rules.permits, addresses)):
            raise _failed("its host has no address, or one that is not public")
        return addresses

    async def _get(self, url: ImageUrl, addresses: Sequence[IPAddress], hold: Hold) -> bytes | ImageUrl:
        """The body, or where else it is."""
        allowance = Allowance(MAX_HEAD_BYTES)
        network = PinnedBackend(self._network, addresses, allowance)
        parts = URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        tls = self._tls if url.scheme == "https" else None
        connection = AsyncHTTPConnection(parts.origin, tls, network_backend=network)
        headers = [(b"Host", url.authority.encode("ascii")), *HEADERS]
        timeouts = {"connect": CONNECT_S, "read": READ_S, "write": READ_S}
        try:
            async with connection.stream("GET", parts, headers=headers, extensions={"timeout": timeouts}) as response:
                if response.status in REDIRECTS:
                    return redirected(url, _header(response, b"location"))
                # Framing may be as long as the body, or longer for a few chunks; more means that they are too small.
                allowance.begin_body(2 * self._config.max_image_bytes + MAX_HEAD_BYTES)
                return await self._body(response, hold)
        finally:
            await network.aclose()

    async def _body(self, response: Response, hold: Hold) -> bytes:
        if response.status != 200:
            raise _failed("its server answers with an error")
        if _header(response, b"content-encoding").lower() not in (b"", b"identity"):
            raise _failed("its server sends it compressed, although it was asked not to")
        limit = self._config.max_image_bytes
        length = _header(response, b"content-length")
        if length.isdigit() and int(length[:19]) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_stream():
            hold(len(part))
            parts.append(part)
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            if len(parts) > MAX_SMALL_PARTS + size // PART_BYTES:
                raise _failed("its server sends it in parts that are too small")
        return b"".join(parts)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or default_ssl_context()


def _matches(host: str, pattern: str) -> bool:
    """Whether ``host`` is what ``pattern`` names: itself, or with ``*.`` in front all names that end like that."""
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _header(response: Response, name: bytes) -> bytes:
    """The value of a header; empty if it is missing or stands there twice, with values that could contradict."""
    values = [value for key, value in response.headers if key.lower() == name]
    return values[0].strip() if len(values) == 1 else b""


def _too_large(limit: int) -> InvalidImage:
    return InvalidImage(f"The image has more than {limit} bytes; use a smaller one.", code="image_file_too_large")


def _failed(why: str) -> InvalidImage:
    return InvalidImage(f"The image could not be downloaded: {why}.", code="failed_to_download_image")
