"""What the operating system is asked, and how its answers are read."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from router.fetch.resolver import SystemResolver

pytestmark = pytest.mark.anyio


async def test_every_address_in_the_order_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answers(host: Any, port: Any, **settings: Any) -> list[Any]:
        asked.append((host, port, settings))
        six, four = (socket.AF_INET6, socket.SOCK_STREAM, 6, ""), (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*six, ("2606:4700::1111", 0, 0, 0)), (*six, ("fe80::1%eth0", 0, 0, 2)), (*four, ("93.184.215.14", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    found = await SystemResolver().resolve("example.org")
    assert list(found) == [ip_address(one) for one in ("2606:4700::1111", "fe80::1%eth0", "93.184.215.14")]
    assert asked == [(b"example.org", None, {"type": socket.SOCK_STREAM})]  # bytes: Python would map Unicode itself


async def test_a_name_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any, **_settings: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert await SystemResolver().resolve("nowhere.example") == ()
