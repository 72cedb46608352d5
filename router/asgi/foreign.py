"""Requests that a web page of another site has made the browser send, which are refused.

A page may post to any address, this machine's included, and learns at least that something is there. Browsers name the
page's site in ``Origin``. They leave it out where they believe that they stay on one site, which an attacker reaches by
giving a name of theirs our address (DNS rebinding); then ``Host`` is that name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import Scope

from router.asgi.errors import Forbidden

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
ANY = "*"


def refuse_foreign(scope: Scope, allowed_hosts: Sequence[str], allowed_origins: Sequence[str] = ()) -> None:
    """Check the headers ``Host`` and ``Origin``.

    Args:
        scope: Of the request.
        allowed_hosts, allowed_origins: As in :class:`~router.config.RouterConfig`.

    Raises:
        Forbidden: The request comes from another site, or through a name that this server does not have.
    """
    headers = Headers(scope=scope)
    hosts = [host.lower() for host in headers.getlist("host")]
    if ANY not in allowed_hosts and _on_loopback(scope):
        _check_hosts(hosts, (*LOOPBACK_HOSTS, *allowed_hosts))
    own = [f"{scope['scheme']}://{host}" for host in hosts]
    others = [origin for origin in headers.getlist("origin") if [origin.lower()] != own]
    if ANY not in allowed_origins and any(origin not in allowed_origins for origin in others):
        raise Forbidden(
            "Requests from web pages of other sites are not accepted. Send the request from a program, or through a "
            "server of your own; an operator can allow the page's site (allowed_origins).",
            code="origin_not_allowed",
        )


def _check_hosts(hosts: Sequence[str], allowed: Sequence[str]) -> None:
    if any(_without_port(host) not in allowed for host in hosts):
        raise Forbidden(
            "This address is only served under the names 127.0.0.1, localhost and [::1]; an operator can add others "
            "(allowed_hosts).",
            code="host_not_allowed",
        )


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _on_loopback(scope: Scope) -> bool:
    """Whether the connection came in at a loopback address."""
    return _is_loopback((scope.get("server") or ("",))[0])


@lru_cache(maxsize=64)  # a machine has few addresses
def _is_loopback(server: str) -> bool:
    """Whether an address of this machine is a loopback one. A name instead of an address is a test's."""
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None  # of a socket for both
    return (mapped or address).is_loopback
