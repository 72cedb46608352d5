"""The published cases of other libraries: each URL gets a typed error, and no packet leaves for a refused address."""

from __future__ import annotations

import socket
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from router.fetch.networks import AddressRules
from tests.router.fetch.published import (
    ANTISSRF_NETWORKS,
    ANTISSRF_URLS,
    NAMES,
    PERMITTED,
    SSRFGUARD_ADDRESSES,
    SSRFGUARD_URLS,
    STRICTER,
)
from tests.router.fetch.trap import Trap, connections, refused
from tests.router.web import PUBLIC, redirect, serving, world
from vlm.errors import InvalidImage

pytestmark = pytest.mark.anyio

RULES = AddressRules()
ADDRESSES = (*SSRFGUARD_ADDRESSES, *STRICTER)


@pytest.mark.parametrize("url", sorted({*ANTISSRF_URLS, *SSRFGUARD_URLS}), ids=ascii)
async def test_a_url(url: str, trap: Trap) -> None:
    assert (await refused(url, trap)).code == "invalid_image_url"


@pytest.mark.parametrize("address", ADDRESSES)
async def test_an_address(address: str, trap: Trap) -> None:
    host = f"[{address}]" if ":" in address else address
    assert "not public" in (await refused(f"http://{host}:{trap.port}/", trap)).message


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_name_and_a_redirect_to_the_address(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    async with serving({"/": redirect(f"http://{host}/")}) as web:
        there = world(web, {"inside.example": [address], "example.org": [PUBLIC]})
        for url in ("http://inside.example/", "http://example.org/"):
            with pytest.raises(InvalidImage, match="not public"):
                await there.fetch(url)
        assert there.wires.connected == [(PUBLIC, 80)]
        assert web.accepted == 1


@pytest.mark.parametrize("network", ANTISSRF_NETWORKS)
def test_both_ends_of_a_network(network: str) -> None:
    whole = ip_network(network)
    middle = whole[whole.num_addresses // 2]
    assert not any(map(RULES.permits, (whole[0], middle, whole[-1])))
    if isinstance(whole[0], IPv4Address):
        for wrapped in (f"::ffff:{whole[0]}", f"64:ff9b::{whole[-1]}"):
            assert not RULES.permits(ip_address(wrapped))


@pytest.mark.parametrize("network", ANTISSRF_NETWORKS)
def test_the_tables_do_without_python_s_own(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of Python disagree about what is global."""
    for kind in (IPv4Address, IPv6Address):
        monkeypatch.setattr(kind, "is_global", True)
        monkeypatch.setattr(kind, "is_multicast", False)
        monkeypatch.setattr(kind, "is_reserved", False)
    whole = ip_network(network)
    assert not any(map(RULES.permits, (whole[0], whole[-1])))


@pytest.mark.parametrize(("fact", "value"), [("is_global", False), ("is_multicast", True), ("is_reserved", True)])
def test_python_s_own_do_without_the_tables(fact: str, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry may grow, and Python learns of it."""
    assert RULES.permits(ip_address("8.8.8.8"))
    monkeypatch.setattr(IPv4Address, fact, value)
    assert not RULES.permits(ip_address("8.8.8.8"))


def test_a_public_address_with_an_interface_is_refused() -> None:
    assert not RULES.permits(ip_address("2606:4700:4700::1111%eth0"))


@pytest.mark.parametrize("address", PERMITTED)
def test_public_addresses_stay_permitted(address: str) -> None:
    assert RULES.permits(ip_address(address))


@pytest.mark.parametrize("name", NAMES)
async def test_a_name(name: str) -> None:
    async with serving() as web:
        there = world(web, NAMES)
        with pytest.raises(InvalidImage, match="not public"):
            await there.fetch(f"http://{name}/")
        assert (there.wires.connected, web.accepted) == ([], 0)


def test_connections_are_counted_below_the_fetcher(trap: Trap) -> None:
    """Otherwise an empty count would say nothing."""
    with connections() as opened, closing(socket.create_connection(("127.0.0.1", trap.port))):
        pass
    assert opened == [("127.0.0.1", trap.port)]
    assert trap.caught() == 1


def test_there_are_enough_of_them() -> None:
    assert len({*ANTISSRF_URLS, *SSRFGUARD_URLS}) >= 100
    assert len({*ADDRESSES, *ANTISSRF_NETWORKS}) >= 75
