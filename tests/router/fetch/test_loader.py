"""The images of one request, whatever kind of URL they have; and requests with URLs from end to end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from router.asgi.format import ImageReference, Requester
from router.config import RouterConfig
from router.fetch.loader import UrlLoader
from router.images import DataUrlLoader, check_image
from tests.images import data_url, plain
from tests.router.web import IMAGE, Say, Web, World, answer, serving, world
from tests.router.world import CHAT, FakeBackend, body, check_error, image_part, post, talk, user
from vlm.errors import InvalidImage, Overloaded
from vlm.image.limits import ImageLimits

pytestmark = pytest.mark.anyio

PARAM = "messages[0].content[0].image_url.url"
LIMITS = ImageLimits(max_bytes=100_000)


async def load(there: World | None, *urls: str) -> Sequence[bytes]:
    fetcher = there.fetcher if there else None
    loader = UrlLoader(DataUrlLoader(LIMITS), fetcher, lambda data, param: check_image(data, LIMITS, param))
    references = [ImageReference(url, f"images[{index}]") for index, url in enumerate(urls)]
    return await loader.load(references, Requester("me", lambda _bytes: None))


async def test_images_come_in_order_and_at_the_same_time() -> None:
    both = asyncio.Barrier(2)

    def together(data: bytes) -> Say:
        async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with asyncio.timeout(20):
                await both.wait()
            writer.write(answer(data))

        return say

    first, second, third = plain(1, 2), plain(3, 4), plain(5, 6)
    async with serving({"/1": together(first), "/3": together(third)}) as web:
        urls = ("http://example.org/1", data_url(second), "HTTP://example.org/3")
        assert await load(world(web), *urls) == [first, second, third]


async def test_the_first_error_ends_the_others() -> None:
    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving({"/slow": mute}) as web:
        there = world(web)
        with pytest.raises(InvalidImage) as caught:
            await load(there, "http://example.org/slow", "http://example.org/lost")
        assert (caught.value.code, caught.value.param) == ("failed_to_download_image", "images[1]")
        await web.quiet()
        assert there.fetcher.turns.running == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_image_file"),
        (b"<html>not here</html>", "invalid_image_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "invalid_image_format"),
        (b"%PDF-1.7", "invalid_image_format"),
        (IMAGE[:40], "image_parse_error"),
    ],
)
async def test_the_bytes_decide_whether_it_is_an_image(data: bytes, code: str) -> None:
    async with serving({"/cat.png": answer(data, content_type="image/png")}) as web:
        with pytest.raises(InvalidImage) as caught:
            await load(world(web), "http://example.org/cat.png")
        assert (caught.value.code, caught.value.param) == (code, "images[0]")


async def test_a_wrong_media_type_does_no_harm() -> None:
    async with serving({"/cat": answer(content_type="text/html; charset=utf-8")}) as web:
        assert await load(world(web), "http://example.org/cat") == [IMAGE]


@pytest.mark.parametrize("url", ["ftp://example.org/a.png", "/etc/passwd", "iVBORw0KGgo=", "", "C:\\a.png", "x:y"])
async def test_what_is_neither(url: str) -> None:
    for there, http in ((world(), True), (None, False)):
        with pytest.raises(InvalidImage) as caught:
            await load(there, url)
        assert caught.value.code == "invalid_image_url"
        assert ("http or https" in caught.value.message) == http


async def test_an_operator_can_switch_it_off() -> None:
    with pytest.raises(InvalidImage, match="must be a data URL") as caught:
        await load(None, "https://example.org/cat.png")
    assert (caught.value.code, caught.value.param) == ("invalid_image_url", "images[0]")
    assert await load(None, data_url(IMAGE)) == [IMAGE]


async def test_no_cache_by_url() -> None:
    async with serving() as web:
        there = world(web)
        await load(there, "http://example.org/cat.png")
        web.pages["/cat.png"] = answer(plain(9, 9))
        assert await load(there, "http://example.org/cat.png") == [plain(9, 9)]


async def test_downloaded_bytes_are_counted() -> None:
    async with serving() as web:
        there = world(web)
        await there.fetch()
        assert sum(there.held) == len(IMAGE)


async def test_no_room_for_the_bytes() -> None:
    def full(_bytes: int) -> None:
        raise Overloaded("no room")

    async with serving() as web:
        there = world(web)
        with pytest.raises(Overloaded):
            await there.fetcher.fetch("http://example.org/cat.png", Requester("me", full))
        assert there.fetcher.turns.running == 0


# From end to end: the router as it is, which is told that this machine's addresses may be used


def config(web: Web, **settings: Any) -> RouterConfig:
    there = {"allowed_image_networks": ["127.0.0.0/8"], "image_ports": [web.port]}
    return RouterConfig.from_args(there | settings)


def ask(web: Web, path: str = "/cat.png") -> dict[str, Any]:
    return body(messages=[user(image_part(f"http://127.0.0.1:{web.port}{path}"))])


async def test_a_chat_request_with_a_url() -> None:
    async with serving() as web:
        backend = FakeBackend()
        response = await post(backend, ask(web), config(web))
        assert response.status_code == 200, response.text
        assert backend.asked[0][1].image == IMAGE


async def test_a_chat_request_with_a_url_that_is_not_allowed() -> None:
    async with serving() as web:
        refusing: list[dict[str, Any]] = [
            {"allowed_image_networks": []},
            {"image_ports": [443]},
            {"image_urls": "off"},
        ]
        for settings in refusing:
            check_error(await post(FakeBackend(), ask(web), config(web, **settings)), 400, "invalid_image_url", PARAM)
        assert web.accepted == 0


async def test_a_chat_request_whose_image_does_not_come_in_time() -> None:
    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving({"/cat.png": mute}) as web:
        late = config(web, image_download_timeout_s=0.1)
        check_error(await post(FakeBackend(), ask(web), late), 400, "failed_to_download_image", PARAM)
        check_error(await post(FakeBackend(), ask(web), config(web, request_timeout_s=0.1)), 504, "timeout", None)


async def test_a_client_that_leaves_ends_the_download() -> None:
    from router.app import create_app

    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving({"/cat.png": mute}) as web:
        backend = FakeBackend()
        request = {"type": "http.request", "body": json.dumps(ask(web)).encode(), "more_body": False}
        await talk(create_app(backend, config(web)), CHAT, [request, {"type": "http.disconnect"}])
        await web.quiet()
        assert backend.asked == []


async def test_images_count_among_what_a_process_holds() -> None:
    """A small body must not make the router hold a large image for nothing."""
    async with serving({"/cat.png": answer(bytes(300_000))}) as web:
        small = config(web, max_total_body_bytes=200_000)
        check_error(await post(FakeBackend(), ask(web), small), 503, "overloaded", None)
        web.pages["/cat.png"] = answer()
        assert (await post(FakeBackend(), ask(web), small)).status_code == 200
