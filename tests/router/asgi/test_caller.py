"""The caller's name: the same for the same address and credential, and different for others."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from router.asgi.caller import CREDENTIALS, Owner, caller_of, owner_of
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


KEY = "sk-0123456789abcdefghijkl"


def test_a_key_is_one_owner_from_every_address_and_in_every_header() -> None:
    [owner] = {
        owner_of(scope(authorization=f"Bearer {KEY}")),
        owner_of(scope("192.0.2.2", authorization=f"bearer  {KEY} ")),
        owner_of(scope(None, x_moondream_auth=KEY)),
        owner_of(scope(authorization=KEY)),
    }
    assert owner.has_key
    assert KEY not in owner.name
    assert owner != owner_of(scope(authorization=f"Bearer {KEY}m"))


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer",
        "Bearer none",
        "Bearer sk-no-key-required",
        f"Bearer {KEY[:23]}",
        f"Bearer {'xy' * 40}",
        f"Bearer {'abcdefghi' * 10}",
        "Basic YWRtaW46cGFzc3dvcmQxMjM0NTY3OA==",
    ],
)
def test_what_others_could_guess_counts_only_with_the_address(credential: str) -> None:
    here, there = owner_of(scope(authorization=credential)), owner_of(scope("192.0.2.2", authorization=credential))
    assert (here.has_key, there.has_key) == (False, False)
    assert here != there
    assert here == Owner(caller_of(scope(authorization=credential)), has_key=False)


def test_a_name_without_a_key_is_never_that_of_a_key() -> None:
    assert owner_of(scope()).name != owner_of(scope(authorization=f"Bearer {KEY}")).name


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
