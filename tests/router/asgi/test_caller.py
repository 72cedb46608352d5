"""The caller's name: the same for the same address and credential, and different for others."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from router.asgi.caller import CREDENTIALS, caller_of
from tests.router.world import FakeBackend, body, client

HOST = "192.0.2.1"


def scope(host: str | None = HOST, **headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "client": None if host is None else (host, 50_000), "headers": raw}


def test_the_port_of_a_connection_makes_no_difference() -> None:
    assert caller_of(scope()) == caller_of({**scope(), "client": (HOST, 50_001)})


@pytest.mark.parametrize("header", CREDENTIALS)
def test_addresses_and_credentials_tell_callers_apart(header: str) -> None:
    named = {header: "Bearer one"}
    scopes = [
        scope(),
        scope("192.0.2.2"),
        scope(**named),
        scope("192.0.2.2", **named),
        scope(**{header: "Bearer two"}),
        scope(None),
        scope(None, **named),
    ]
    assert len(set(map(caller_of, scopes))) == len(scopes)


def test_the_same_text_in_another_place_is_another_caller() -> None:
    assert caller_of(scope(authorization="key")) != caller_of(scope(x_moondream_auth="key"))
    assert caller_of(scope("a", authorization="b")) != caller_of(scope("ab"))


def test_a_forwarded_address_is_not_believed() -> None:
    assert caller_of(scope(x_forwarded_for="198.51.100.7", forwarded="for=198.51.100.7")) == caller_of(scope())


def test_the_name_reveals_neither_address_nor_credential() -> None:
    name = caller_of(scope(authorization="Bearer sécret"))
    assert len(name) == 32
    assert not any(part in name for part in (HOST, "Bearer", "cret"))


def test_every_router_process_gives_the_same_name() -> None:
    check = f"from router.asgi.caller import caller_of; print(caller_of({scope(authorization='Bearer one')!r}))"
    found = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == caller_of(scope(authorization="Bearer one"))


@pytest.mark.anyio
async def test_the_model_is_told_who_asks() -> None:
    backend = FakeBackend()
    async with client(backend) as http:
        for key in ("one", "one", "two"):
            answer = await http.post("/v1/chat/completions", json=body(), headers={"authorization": f"Bearer {key}"})
            assert answer.status_code == 200
    first, again, other = (request.caller for _, request in backend.asked)
    assert first == again != other
    assert first is not None
    assert "one" not in first
