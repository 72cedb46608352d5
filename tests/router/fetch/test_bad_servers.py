"""Servers that do what they can to harm who downloads from them, and what remains of a download that ends early."""

from __future__ import annotations

import asyncio
import gzip
import logging
from pathlib import Path
from typing import Any

import pytest

from router.fetch import fetcher
from router.fetch.fetcher import MAX_REDIRECTS
from tests.router.web import IMAGE, PUBLIC, Say, Web, answer, authority, failure, redirect, serving, world
from vlm.errors import InvalidImage

pytestmark = pytest.mark.anyio

LIMIT = 4096
HEAD = b"HTTP/1.1 200 OK\r\n"


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
    "a status that is not a number": b"HTTP/1.1 secret OK\r\n\r\n",
    "a line that is not a header": HEAD + b"secret\r\n\r\n",
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


@pytest.mark.parametrize("page", ["headers without end", "announcements without end", "an extension without end"])
async def test_what_comes_through_tls_is_counted_too(page: str, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    ours = authority(tmp_path, "example.org")
    async with serving({"/cat.png": BAD[page]}, ours.server) as secure:
        there = world(secure=secure, tls=ours.client, max_image_bytes=LIMIT)
        assert "does not speak HTTP" in (await failure(there, "https://example.org/cat.png")).message


async def test_a_length_that_is_too_short_ends_the_image() -> None:
    async with serving({"/cat.png": HEAD + b"Content-Length: 5\r\n\r\nhello, world"}) as web:
        assert await world(web).fetch() == b"hello"


async def test_small_chunks_are_read_while_they_are_few() -> None:
    framed = b"".join(b"1\r\n%c\r\n" % byte for byte in IMAGE)
    assert len(IMAGE) < fetcher.MAX_SMALL_PARTS
    async with serving({"/cat.png": CHUNKED + framed + b"0\r\n\r\n"}) as web:
        assert await world(web).fetch() == IMAGE


async def test_chunks_that_are_too_small() -> None:
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
