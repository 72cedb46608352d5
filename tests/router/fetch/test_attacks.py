"""What must not be connected to: each URL gets a typed error, and no packet leaves for an address that is refused."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.router.fetch.attacks import REFUSED, SPELLINGS, URLS
from tests.router.fetch.trap import Trap, refused
from tests.router.web import OTHER, PUBLIC, redirect, serving, world
from vlm.errors import InvalidImage

pytestmark = pytest.mark.anyio

HOSTS = [f"[{address}]" if ":" in address else address for address in REFUSED if "%" not in address]


@pytest.mark.parametrize("host", HOSTS)
async def test_an_address_that_is_not_public(host: str, trap: Trap) -> None:
    for url in (f"http://{host}/", f"http://{host}:{trap.port}/latest/meta-data/", f"https://{host}/"):
        error = await refused(url, trap)
        assert "not public" in error.message


@pytest.mark.parametrize("host", SPELLINGS, ids=ascii)
async def test_an_address_in_another_spelling(host: str, trap: Trap) -> None:
    for url in (f"http://{host}/", f"http://{host}:{trap.port}/", f"https://{host}/x"):
        assert (await refused(url, trap)).code == "invalid_image_url"


@pytest.mark.parametrize("url", URLS, ids=ascii)
async def test_a_url_that_is_refused_as_it_stands(url: str, trap: Trap) -> None:
    error = await refused(url, trap)
    assert error.code == "invalid_image_url"
    assert "127.0.0.1" not in error.message
    assert "example" not in error.message


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "LocalHost"])
async def test_the_system_s_own_names(name: str, trap: Trap) -> None:
    assert (await refused(f"http://{name}:{trap.port}/", trap)).code == "failed_to_download_image"


@pytest.mark.parametrize("address", REFUSED)
async def test_a_name_that_leads_to_an_address_that_is_not_public(address: str) -> None:
    async with serving() as web:
        internal = world(web, {"innocent.example": [address]})
        nothing = world(web, {})
        messages = []
        for there in (internal, nothing):
            with pytest.raises(InvalidImage) as caught:
                await there.fetch("http://innocent.example/cat.png")
            assert there.wires.connected == []
            messages.append((caught.value.code, caught.value.message))
        assert messages[0] == messages[1]  # which names exist inside is not to be learned
        assert web.accepted == 0


@pytest.mark.parametrize("answers", [[PUBLIC, "127.0.0.1"], ["10.0.0.1", PUBLIC], [PUBLIC] * 100 + ["::1"]])
async def test_one_address_that_is_not_public_is_enough(answers: list[str]) -> None:
    async with serving() as web:
        there = world(web, {"mixed.example": answers})
        with pytest.raises(InvalidImage, match="not public"):
            await there.fetch("http://mixed.example/cat.png")
        assert (there.wires.connected, web.accepted) == ([], 0)


@pytest.mark.parametrize("host", HOSTS)
async def test_a_redirect_to_an_address_that_is_not_public(host: str) -> None:
    async with serving({"/": redirect(f"http://{host}/latest/meta-data/")}) as web:
        there = world(web)
        with pytest.raises(InvalidImage, match="not public"):
            await there.fetch("http://example.org/")
        assert there.wires.connected == [(PUBLIC, 80)]
        assert web.accepted == 1


@pytest.mark.parametrize("host", [host for host in SPELLINGS if host and host.isascii()], ids=ascii)
async def test_a_redirect_to_another_spelling(host: str) -> None:
    async with serving({"/": redirect(f"http://{host}/")}) as web:
        there = world(web)
        with pytest.raises(InvalidImage):
            await there.fetch("http://example.org/")
        assert there.wires.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_a_name_that_is_not_public(status: int) -> None:
    async with serving({"/": redirect("//inside.example/", status)}) as web:
        there = world(web, {"example.org": [PUBLIC], "inside.example": ["10.1.2.3"]})
        with pytest.raises(InvalidImage, match="not public"):
            await there.fetch("http://example.org/")
        assert there.names.asked == ["example.org", "inside.example"]
        assert there.wires.connected == [(PUBLIC, 80)]


@pytest.mark.parametrize("inside", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_moves_between_check_and_connection(inside: str) -> None:
    """It is looked up once, and the connection goes to the address that was checked."""
    async with serving() as web:
        there = world(web, {"rebinding.example": [[PUBLIC], [inside]]})
        await there.fetch("http://rebinding.example/cat.png")
        assert there.names.asked == ["rebinding.example"]
        assert there.wires.connected == [(PUBLIC, 80)]
        with pytest.raises(InvalidImage, match="not public"):
            await there.fetch("http://rebinding.example/cat.png")
        assert there.wires.connected == [(PUBLIC, 80)]


async def test_a_name_that_moves_between_a_page_and_its_redirect() -> None:
    async with serving({"/": redirect("/cat.png")}) as web:
        there = world(web, {"rebinding.example": [[PUBLIC], ["127.0.0.1"]]})
        with pytest.raises(InvalidImage, match="not public"):
            await there.fetch("http://rebinding.example/")
        assert there.wires.connected == [(PUBLIC, 80)]


async def test_a_name_that_moves_to_another_public_address() -> None:
    """Also then the connection is to the address that was checked, and not to one that would pass."""
    async with serving() as web:
        there = world(web, {"rebinding.example": [[PUBLIC], [OTHER]]})
        await there.fetch("http://rebinding.example/cat.png")
        assert there.wires.connected == [(PUBLIC, 80)]


def test_there_are_enough_of_them() -> None:
    assert len({*REFUSED, *SPELLINGS, *URLS}) > 250
    assert all(ip_address(address) for address in REFUSED)
