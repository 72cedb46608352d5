"""Which addresses an image may be downloaded from: those of the public internet, and those that an operator allows.

Python's ``is_global`` alone would not do: it allows multicast, old kinds of tunnels, and what cloud providers have
placed at public addresses. The tables are those of IANA's registries of special-purpose addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")  # nothing else of IPv6 has been given out to hosts
_NAT64 = IPv6Network("64:ff9b::/96")

_SPECIAL: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by the customers of a provider
            "127.0.0.0/8",  # loopback
            "169.254.0.0/16",  # link-local, metadata services among them
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112, for queries that should not leave a network
            "192.52.193.0/24",  # multicast tunnels
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
            "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID and others
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)

# Never, whatever an operator allows: a network that embeds an IPv4 address leads to that address and not to a host of
# its own, and a metadata service hands out the credentials of the machine.
_EMBEDDING: tuple[Network, ...] = tuple(
    map(ip_network, ("::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "::ffff:0:0:0/96"))
)
_METADATA: tuple[Network, ...] = tuple(
    map(
        ip_network,
        (
            "169.254.169.254/32",  # AWS, Azure, Google and others
            "169.254.170.2/32",  # AWS, of containers
            "169.254.170.23/32",  # AWS, of pods
            "169.254.0.23/32",  # Tencent
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure, at a public address
            "192.0.0.192/32",  # Oracle
            "fd00:ec2::/32",  # AWS
            "fd20:ce::/32",  # Google
        ),
    )
)
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # the upper half of an interface id that embeds an IPv4 address


class AddressRules:
    """Decides about addresses.

    Args:
        allowed: Networks that are allowed beside the public internet, as ``10.20.0.0/16``.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = tuple(map(ip_network, allowed))

    def permits(self, address: IPAddress) -> bool:
        """Whether an image may be downloaded from ``address``."""
        address = unwrapped(address)
        if _within(address, _EMBEDDING) and address != IPv6Address("::1"):
            return False
        if _within(address, _METADATA):
            return False
        return _within(address, self._allowed) or is_public(address)


def unwrapped(address: IPAddress) -> IPAddress:
    """The IPv4 address that a packet to ``address`` reaches, where it is mapped or translated into one."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address


def is_public(address: IPAddress) -> bool:
    """Whether ``address``, unwrapped, is that of a host on the public internet."""
    if not address.is_global or address.is_multicast or address.is_reserved or _within(address, _SPECIAL):
        return False
    if isinstance(address, IPv4Address):
        return True
    isatap = (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP
    return address in _GLOBAL_UNICAST and address.scope_id is None and not isatap


def _within(address: IPAddress, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
