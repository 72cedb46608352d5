"""Downloads from servers of the test's own: good ones, and those that do what they can."""

from __future__ import annotations

import asyncio
import gzip
import logging
from pathlib import Path
from typing import Any

import pytest

from router.fetch import fetcher
from router.fetch.fetcher import MAX_REDIRECTS
from tests.router.web import IMAGE, OTHER, PUBLIC, Say, Web, World, answer, authority, redirect, serving, world
from vlm.errors import InvalidImage

pytestmark = pytest.mark.anyio

LIMIT = 4096
HEAD = b"HTTP/1.1 200 OK\r\n"


async def failure(there: World, url: str = "http://example.org/cat.png") -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        await there.fetch(url)
    assert there.fetcher.turns.running == 0
    return caught.value


# What works


async def test_an_image_over_http() -> None:
    async with serving({"/cat.png?size=1": answer()}) as web:
        there = world(web)
        assert await there.fetch("http://EXAMPLE.org:80/cat.png?size=1#x") == IMAGE
        assert there.wires.connected == [(PUBLIC, 80)]
        [head] = web.requests
        assert head.decode().lower().splitlines() == [
            "get /cat.png?size=1 http/1.1",
            "host: example.org",
            "user-agent: gigarouter",
            "accept: image/png, image/jpeg, image/webp, image/gif, image/bmp",
            "accept-encoding: identity",
            "connection: close",
            "",
        ]


async def test_nothing_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with serving({}) as proxy, serving() as web:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        (tmp_path / ".netrc").write_text("machine example.org login me password secret\n", "utf-8")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        assert await world(web).fetch() == IMAGE
        assert proxy.accepted == 0
        assert b"uthorization" not in web.requests[0]


async def test_an_image_over_https(tmp_path: Path) -> None:
    """The connection goes to an address; the certificate is that of the name."""
    pytest.importorskip("cryptography")
    ours = authority(tmp_path, "example.org")
    names: list[str | None] = []
    ours.server.sni_callback = lambda _socket, name, _context: names.append(name)
    async with serving(tls=ours.server) as secure:
        there = world(secure=secure, tls=ours.client)
        assert await there.fetch("https://example.org/cat.png") == IMAGE
        assert names == ["example.org"]
        assert b"host: example.org\r\n" in secure.requests[0].lower()
        assert there.wires.connected == [(PUBLIC, 443)]


async def test_https_at_an_address(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    ours = authority(tmp_path, PUBLIC)
    async with serving(tls=ours.server) as secure:
        assert await world(secure=secure, tls=ours.client).fetch(f"https://{PUBLIC}/cat.png") == IMAGE


@pytest.mark.parametrize("fault", ["of another name", "of an address", "expired", "of an unknown authority"])
async def test_a_certificate_that_is_not_good(fault: str, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    host = {"of another name": "other.example", "of an address": PUBLIC}.get(fault, "example.org")
    ours = authority(tmp_path, host, expired=fault == "expired")
    tls = None if fault == "of an unknown authority" else ours.client
    async with serving(tls=ours.server) as secure:
        error = await failure(world(secure=secure, tls=tls), "https://example.org/cat.png")
        assert error.code == "failed_to_download_image"
        assert "ertificate" not in error.message
        assert secure.requests == []


async def test_a_body_in_chunks() -> None:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (IMAGE[:10], IMAGE[10:]))
    page = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    async with serving({"/cat.png": page}) as web:
        assert await world(web).fetch() == IMAGE


async def test_a_body_that_ends_with_the_connection() -> None:
    async with serving({"/cat.png": HEAD + b"\r\n" + IMAGE}) as web:
        assert await world(web).fetch() == IMAGE


@pytest.mark.parametrize("body", [b"", b"no image", b"x" * LIMIT])
async def test_the_content_is_judged_elsewhere(body: bytes) -> None:
    """Not by the header that says what it is, either."""
    async with serving({"/cat.png": answer(body, content_type="text/html")}) as web:
        assert await world(web, max_image_bytes=LIMIT).fetch() == body


async def test_redirects() -> None:
    pages = {
        "/": redirect("/b"),
        "/b": redirect("http://other.example/c"),
        "/c": redirect("cat.png"),
        "/cat.png": answer(),
    }
    async with serving(pages) as web:
        there = world(web)
        assert await there.fetch("http://example.org/") == IMAGE
        assert there.wires.connected == [(PUBLIC, 80)] * 2 + [(OTHER, 80)] * 2
        assert there.names.asked == ["example.org"] * 2 + ["other.example"] * 2
        hosts = [head.split(b"Host: ")[1].split(b"\r\n")[0] for head in web.requests]
        assert hosts == [b"example.org"] * 2 + [b"other.example"] * 2


async def test_a_redirect_to_https_is_followed_and_back_is_not(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    ours = authority(tmp_path, "example.org")
    pages = {"/cat.png": answer(), "/back": redirect("http://example.org/cat.png")}
    async with serving({"/": redirect("https://example.org/cat.png")}) as web, serving(pages, ours.server) as secure:
        there = world(web, secure=secure, tls=ours.client)
        assert await there.fetch("http://example.org/") == IMAGE
        assert (await failure(there, "https://example.org/back")).code == "invalid_image_url"
        assert (web.accepted, secure.accepted) == (1, 2)


async def test_the_next_address_is_tried() -> None:
    async with serving() as web:
        there = world(web, {"example.org": [OTHER, PUBLIC]}, silent=[OTHER])
        assert await there.fetch() == IMAGE
        assert there.wires.connected == [(OTHER, 80), (PUBLIC, 80)]


async def test_not_every_address_is_tried() -> None:
    there = world(names={"example.org": [f"93.184.215.{number}" for number in range(200)]})
    assert (await failure(there)).code == "failed_to_download_image"
    assert len(there.wires.connected) == 4


# What the operator says


async def test_private_networks_that_are_allowed() -> None:
    async with serving() as web:
        there = world(web, {"nas": ["10.20.0.5"], "other": ["10.21.0.5"]}, allowed_image_networks=["10.20.0.0/16"])
        assert await there.fetch("http://nas/cat.png") == IMAGE
        assert await there.fetch("http://10.20.0.9/cat.png") == IMAGE
        await failure(there, "http://other/cat.png")
        await failure(there, "http://127.0.0.1/cat.png")
        assert there.wires.connected == [("10.20.0.5", 80), ("10.20.0.9", 80)]


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("example.org", True), ("a.cdn.example", True), ("a.b.cdn.example", True), ("cdn.example", False),
        ("a.example.org", False), ("xcdn.example", False), ("example.org.evil.example", False), (PUBLIC, False),
    ],
)  # fmt: skip
async def test_hosts_that_are_allowed(host: str, allowed: bool) -> None:
    hosts = ["example.org", "*.cdn.example"]
    async with serving() as web:
        there = world(web, {host: [PUBLIC]}, image_urls="allowed", allowed_image_hosts=hosts)
        if allowed:
            assert await there.fetch(f"http://{host}/cat.png") == IMAGE
        else:
            assert (await failure(there, f"http://{host}/cat.png")).code == "invalid_image_url"
            assert (there.names.asked, there.wires.connected) == ([], [])


async def test_a_redirect_to_a_host_that_is_not_allowed() -> None:
    async with serving({"/": redirect("http://other.example/")}) as web:
        there = world(web, image_urls="allowed", allowed_image_hosts=["example.org"])
        assert "that host" in (await failure(there, "http://example.org/")).message
        assert there.names.asked == ["example.org"]


async def test_ports() -> None:
    there = world(image_ports=[8080])
    assert "8080" in (await failure(there, "http://example.org/")).message
    await failure(there, "http://example.org:8080/")
    assert there.wires.connected == [(PUBLIC, 8080)]


# What servers do


def forever(*parts: bytes) -> Say:
    """Says the first part, and the others again and again, until the client has gone."""

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(parts[0])
        while True:
            for part in parts[1:]:
                writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return say


def silent(*parts: bytes, pause_s: float = 0.01) -> Say:
    """Says the parts with pauses, and then nothing, until the client has gone."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        await reader.read()

    return say


def drip(*parts: bytes) -> Say:
    """Says a byte at a time, and so is never silent for long."""

    async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        while not writer.transport.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    return say


BOMB = gzip.compress(bytes(50_000_000))
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

BAD: dict[str, bytes | Say] = {
    "an error": answer(b"secret", "500 Internal Server Error secret"),
    "nothing found": answer(b"secret", "404 Not Found"),
    "no content": answer(b"", "204 No Content"),
    "a part": answer(status="206 Partial Content"),
    "not modified": answer(b"", "304 Not Modified"),
    "a choice": redirect("/cat.png", 300),
    "a proxy": redirect("/cat.png", 305),
    "another protocol": answer(b"", "101 Switching Protocols", upgrade="secret"),
    "a password wanted": answer(b"", "401 Unauthorized", www_authenticate="Basic realm=secret"),
    "gzip": answer(gzip.compress(IMAGE), content_encoding="gzip"),
    "a gzip bomb": answer(BOMB, content_encoding="gzip"),
    "a brotli bomb": answer(BOMB, content_encoding="br"),
    "deflate twice": answer(BOMB, content_encoding="deflate, gzip"),
    "gzip as transfer": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "nothing at all": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n" * 9,
    "an old HTTP": IMAGE,
    "a status that is no number": b"HTTP/1.1 secret OK\r\n\r\n",
    "a header that is none": HEAD + b"secret\r\n\r\n",
    "a control character in a header": HEAD + b"X: a\x00b\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "a length in digits of another script": HEAD + "Content-Length: \u0665\r\n\r\nhello".encode(),
    "less than the length": HEAD + b"Content-Length: 500\r\n\r\nhello",
    "chunks that end early": CHUNKED + b"5\r\nhello\r\n",
    "a chunk whose size is no number": CHUNKED + b"secret\r\nhello\r\n",
    "a chunk of a negative size": CHUNKED + b"-5\r\nhello\r\n",
    "a chunk of an endless size": CHUNKED + b"f" * 1000 + b"\r\n",
    "headers without end": forever(HEAD, b"X-Filler: " + b"y" * 1000 + b"\r\n"),
    "a header without end": forever(HEAD + b"X-Filler: ", b"y" * 1000),
    "a status line without end": forever(b"HTTP/1.1 200 ", b"y" * 1000),
    "announcements without end": forever(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 20),
    "hints without end": forever(b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 20),
    "an extension without end": forever(CHUNKED + b"5;", b"y" * 1000),
    "a trailer without end": forever(CHUNKED + b"0\r\n", b"X-Filler: " + b"y" * 1000 + b"\r\n"),
    "a redirect nowhere": answer(b"", "302 Found"),
    "two redirects": b"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: /cat.png\r\nContent-Length: 0\r\n\r\n",
    "silence": silent(b""),
    "silence in the status line": silent(b"HTTP/1.1 2"),
    "silence in the headers": silent(HEAD),
    "silence in the body": silent(HEAD + b"Content-Length: 500\r\n\r\nhello"),
    "silence in a chunk": silent(CHUNKED + b"5\r\nhe"),
    "a slow status line": drip(b"HTTP/1.1 200 "),
    "a slow header": drip(HEAD, b"X: "),
    "a slow body": drip(HEAD, b"\r\n"),
}


@pytest.mark.parametrize("page", BAD)
async def test_a_bad_answer(page: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(fetcher, "READ_S", 1.0)
    async with serving({"/cat.png": BAD[page]}) as web:
        there = world(web, image_download_timeout_s=1.5, max_image_bytes=LIMIT * 16)
        error = await failure(there)
        assert error.code in {"failed_to_download_image", "invalid_image_url"}
        assert "secret" not in error.message
        assert error.message.startswith("The image")
        await web.quiet()
    assert not caplog.records


@pytest.mark.parametrize(
    "page",
    {
        "announced": silent(HEAD + b"Content-Length: 4097\r\n\r\n"),
        "announced beyond reason": silent(HEAD + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n"),
        "more than announced to end": forever(HEAD + b"\r\n", b"x" * 1000),
        "in chunks": forever(CHUNKED, b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
        "by one byte": HEAD + b"\r\n" + b"x" * (LIMIT + 1),
    }.items(),
    ids=lambda item: item[0],
)
async def test_an_image_that_is_too_large(page: tuple[str, bytes | Say]) -> None:
    async with serving({"/cat.png": page[1]}) as web:
        error = await failure(world(web, max_image_bytes=LIMIT))
        assert error.code == "image_file_too_large"
        assert str(LIMIT) in error.message


async def test_a_length_that_is_too_short_ends_the_image() -> None:
    async with serving({"/cat.png": HEAD + b"Content-Length: 5\r\n\r\nhello, world"}) as web:
        assert await world(web).fetch() == b"hello"


async def test_chunks_that_are_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MAX_PARTS", 100)
    async with serving({"/cat.png": forever(CHUNKED, b"1\r\nx\r\n" * 50)}) as web:
        assert "too small" in (await failure(world(web))).message


async def test_too_many_redirects() -> None:
    pages = {f"/{number}": redirect(f"/{number + 1}") for number in range(9)}
    async with serving(pages) as web:
        assert (await failure(world(web), "http://example.org/0")).code == "failed_to_download_image"
        assert web.accepted == 1 + MAX_REDIRECTS


async def test_the_deadline_is_that_of_all_redirects_together() -> None:
    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(redirect("/cat.png"))

    async with serving({"/cat.png": slow}) as web:
        assert "too long" in (await failure(world(web, image_download_timeout_s=0.5))).message
        assert web.accepted < 1 + MAX_REDIRECTS


async def test_nobody_answers() -> None:
    error = await failure(world())
    assert error.code == "failed_to_download_image"
    assert not {PUBLIC, "127.0.0.1", "refused", "Errno"} & set(error.message.split())


async def test_a_server_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "CONNECT_S", 0.2)
    async with serving() as web:
        assert (await failure(world(secure=web), "https://example.org/")).code == "failed_to_download_image"


# What remains


async def hello_and_silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


STAGES: dict[str, tuple[str, dict[str, bytes | Say]]] = {
    "headers": ("http://example.org/cat.png", {"/cat.png": silent(HEAD)}),
    "body": ("http://example.org/cat.png", {"/cat.png": silent(HEAD + b"Content-Length: 500\r\n\r\nhello")}),
    "redirect": ("http://example.org/", {"/": redirect("/b"), "/b": silent(b"")}),
}


@pytest.mark.parametrize("stage", STAGES)
async def test_who_is_cancelled_leaves_no_connection(stage: str) -> None:
    url, pages = STAGES[stage]
    async with serving(pages) as web:
        there = world(web)
        task = asyncio.create_task(there.fetch(url))
        await web.until(lambda: len(web.requests) == (2 if stage == "redirect" else 1))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await web.quiet()
        assert there.fetcher.turns.running == 0


@pytest.mark.parametrize("end", ["cancelled", "too late"])
async def test_a_handshake_that_does_not_end_leaves_no_connection(end: str) -> None:
    """httpcore2 does not close a connection that is cancelled within the handshake."""
    accepted, closed = asyncio.Event(), asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await reader.read()
        closed.set()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    try:
        there = world(secure=Web(port=server.sockets[0].getsockname()[1]), image_download_timeout_s=0.5)
        task = asyncio.create_task(there.fetch("https://example.org/"))
        async with asyncio.timeout(20):
            await accepted.wait()
            if end == "cancelled":
                task.cancel()
            await asyncio.wait({task})
            await closed.wait()
        assert task.cancelled() or isinstance(task.exception(), InvalidImage)
        assert there.fetcher.turns.running == 0
    finally:
        server.close()


async def test_lookups_that_do_not_end_are_given_up() -> None:
    class Stuck:
        async def resolve(self, host: str) -> Any:
            await asyncio.sleep(3600)

    there = world(image_download_timeout_s=0.1)
    there.fetcher._resolver = Stuck()
    assert "too long" in (await failure(there)).message


async def test_downloads_at_once_are_bounded_and_all_come() -> None:
    most = {"example.org": 0, "all": 0}
    running: list[str] = []

    async def watch(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.append("x")
        most["all"] = max(most["all"], len(running))
        await asyncio.sleep(0.02)
        running.pop()
        writer.write(answer())

    async with serving({"/cat.png": watch}) as web:
        there = world(web, max_image_downloads=3, max_image_downloads_per_host=2, max_image_downloads_per_caller=9)
        urls = ["http://example.org/cat.png"] * 4 + ["http://other.example/cat.png"] * 4
        assert await asyncio.gather(*map(there.fetch, urls)) == [IMAGE] * 8
        assert most["all"] == 3
        assert there.fetcher.turns.running == 0
