"""A web for tests of downloads: servers on this machine that say what a test wants, and names that lead to them."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from httpcore2 import SOCKET_OPTION, AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream

from router.asgi.format import Requester
from router.config import RouterConfig
from router.fetch.fetcher import Fetcher
from router.fetch.networks import IPAddress
from tests.images import plain
from vlm.errors import InvalidImage

IMAGE = plain(8, 6)
PUBLIC = "93.184.215.14"
OTHER = "151.101.1.69"

Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes = IMAGE, status: str = "200 OK", **headers: str) -> bytes:
    """A whole response; ``content_type="x"`` is a header."""
    given = {"content-length": str(len(body)), **{key.replace("_", "-"): value for key, value in headers.items()}}
    lines = "".join(f"{key}: {value}\r\n" for key, value in given.items() if value)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    """A response that leads elsewhere."""
    return answer(b"", f"{status} Found", location=location)


@dataclass
class Web:
    """A server on loopback.

    Attributes:
        pages: What it answers to each target: bytes, or a function that speaks for itself.
        requests: The heads of the requests that came.
        accepted: How many connections were made.
        open: How many of them are open.
    """

    pages: dict[str, bytes | Say] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)
    accepted: int = 0
    open: int = 0
    port: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        self._changed.set()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            self._changed.set()
            page = self.pages.get(head.split()[1].decode(), answer(b"", "404 Not Found"))
            if isinstance(page, bytes):
                writer.write(page)
                await writer.drain()
            else:
                await page(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
            self.open -= 1
            self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds after a connection has come or gone."""
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def quiet(self) -> None:
        """Wait until no connection is open."""
        await self.until(lambda: not self.open)


@asynccontextmanager
async def serving(
    pages: Mapping[str, bytes | Say] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Web, None]:
    """A server until the end of the block; at which no connection may be left open."""
    web = Web(dict(pages or {"/cat.png": answer()}))
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=tls)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
        await web.quiet()
    finally:
        server.close()


class Names:
    """A resolver of a few names. Of a list of lists, each is one answer, as of a name server that changes its mind."""

    def __init__(self, names: Mapping[str, Sequence[str] | Sequence[Sequence[str]]]) -> None:
        self._names = {host: [*answers] for host, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str) -> Sequence[IPAddress]:
        self.asked.append(host)
        answers: Any = self._names.get(host, [])
        if answers and not isinstance(answers[0], str):
            answers = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ip_address(one) for one in answers]


class Wires(AsyncNetworkBackend):
    """Makes connections, all of them to one server of the test's, and remembers where they were meant to go.

    Args:
        ports: The server's port on loopback by the port that is asked for; without an entry, nobody answers there.
        silent: Addresses at which nobody answers.
    """

    def __init__(self, ports: Mapping[int, int], silent: Iterable[str] = ()) -> None:
        self._ports = ports
        self._silent = set(silent)
        self._network = AnyIOBackend()
        self.connected: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        self.connected.append((host, port))
        ours = 1 if host in self._silent else self._ports.get(port, 1)  # nothing listens at port 1
        return await self._network.connect_tcp("127.0.0.1", ours, timeout, local_address, socket_options)


NAMES = {"example.org": [PUBLIC], "other.example": [OTHER]}


@dataclass
class World:
    """A fetcher, and what is around it."""

    fetcher: Fetcher
    names: Names
    wires: Wires
    held: list[int] = field(default_factory=list)

    async def fetch(self, url: str = "http://example.org/cat.png", caller: str = "me") -> bytes:
        return await self.fetcher.fetch(url, Requester(caller, self.held.append))


def world(
    web: Web | None = None,
    names: Mapping[str, Sequence[str] | Sequence[Sequence[str]]] = NAMES,
    *,
    secure: Web | None = None,
    tls: ssl.SSLContext | None = None,
    silent: Iterable[str] = (),
    **config: Any,
) -> World:
    """A fetcher whose port 80 is ``web`` and whose port 443 is ``secure``, at whatever address."""
    ports = {80: web.port if web else 1, 443: secure.port if secure else 1}
    known, wires = Names(names), Wires(ports, silent)
    return World(Fetcher(RouterConfig.from_args(config), known, wires, tls), known, wires)


async def failure(there: World, url: str = "http://example.org/cat.png") -> InvalidImage:
    """The error of a download that fails, after which no turn may be left."""
    with pytest.raises(InvalidImage) as caught:
        await there.fetch(url)
    assert there.fetcher.turns.running == 0
    return caught.value


# Certificates


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test's own: what a server shows, and what a client trusts."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def authority(folder: Path, *hosts: str, expired: bool = False) -> Authority:
    """An authority that has signed one certificate, for ``hosts`` (names or addresses)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * day)
            .not_valid_after(now - day if expired and not ca else now + day)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )

    ca = builder(ca_name, ca_key.public_key(), ca=True).sign(ca_key, hashes.SHA256())
    alternatives = [_alternative(host) for host in hosts]
    leaf = (
        builder(x509.Name([]), key.public_key(), ca=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + leaf.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cadata=ca.public_bytes(serialization.Encoding.PEM).decode())
    return Authority(server, client)


def _alternative(host: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
