"""Which addresses are public."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fetch.networks import AddressRules, is_public
from tests.router.fetch.attacks import METADATA, REFUSED

RULES = AddressRules()


@pytest.mark.parametrize("address", REFUSED)
def test_refused(address: str) -> None:
    assert not RULES.permits(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "8.8.8.8", "93.184.215.14", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1",
        "169.253.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1", "192.167.1.1", "192.169.1.1", "198.17.0.1",
        "198.20.0.1", "223.255.255.255", "168.63.129.15", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e",
        "2001:200::1", "2003::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
    ],
)  # fmt: skip
def test_public(address: str) -> None:
    assert RULES.permits(ip_address(address))


@given(st.integers(0, 2**32 - 1))
def test_an_embedded_address_never_opens_more_than_the_address_itself(number: int) -> None:
    plain = RULES.permits(IPv4Address(number))
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        assert RULES.permits(IPv6Address(int(IPv6Address(prefix)) + number)) == plain
    for prefix in ("::", "64:ff9b:1::", "::ffff:0:0:0"):
        assert not RULES.permits(IPv6Address(int(IPv6Address(prefix)) + number))
    assert not RULES.permits(IPv6Address((0x2002 << 112) + (number << 80)))


@given(st.integers(0, 2**128 - 1))
def test_python_agrees_with_what_is_public(number: int) -> None:
    address = IPv6Address(number)
    assert address.is_global or not is_public(address)


def test_what_an_operator_allows() -> None:
    rules = AddressRules(["10.20.0.0/16", "fd12::/32", "::1/128"])
    assert all(map(rules.permits, map(ip_address, ("10.20.1.2", "::ffff:10.20.1.2", "fd12::5", "::1", "8.8.8.8"))))
    assert not any(map(rules.permits, map(ip_address, ("10.21.0.1", "fd13::1", "127.0.0.1", "::2", "2002:a14:102::"))))


@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_refused_even_where_everything_is_allowed(address: str) -> None:
    assert not AddressRules(["0.0.0.0/0", "::/0"]).permits(ip_address(address))
