"""Downloads from servers of the test's own: good ones, and those that do what they can."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.router.web import IMAGE, OTHER, PUBLIC, answer, authority, failure, redirect, serving, world

pytestmark = pytest.mark.anyio

LIMIT = 4096
HEAD = b"HTTP/1.1 200 OK\r\n"


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


async def test_both_kinds_of_addresses_are_tried() -> None:
    six = [f"2606:4700::{number}" for number in range(1, 9)]
    async with serving() as web:
        there = world(web, {"example.org": [*six, OTHER, PUBLIC]}, silent=[*six, OTHER])
        assert await there.fetch() == IMAGE
        assert there.wires.connected == [(host, 80) for host in (six[0], OTHER, six[1], PUBLIC)]


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
