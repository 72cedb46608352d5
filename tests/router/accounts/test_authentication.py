"""Which requests are let in, and what those are told that are not."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from accounts.errors import WRONG_KEY
from accounts.keys import new_secret
from accounts.types import KeySpec, Scope
from router.accounts import keyring
from router.asgi.credentials import NO_KEY
from tests.router.accounts.world import World, bearer, eventually

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
SEVERAL = "The request has several API keys; send one."


def refused(
    answer: httpx.Response, status: int, code: str | None, message: str, kind: str = "invalid_request_error"
) -> None:
    """The whole answer is this error."""
    assert answer.json() == {"error": {"message": message, "type": kind, "param": None, "code": code}}
    assert answer.status_code == status
    assert answer.headers["x-request-id"]
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)


async def test_a_good_key_in_either_header() -> None:
    world = World()
    secret = world.table.add()
    async with world.serving() as http:
        for headers in (bearer(secret), {"x-moondream-auth": secret}, {"authorization": f"bearer   {secret} "}):
            answer = await http.post(CHAT, headers=headers)
            assert answer.json() == {"key": "key_0", "caller": "key_0"}
            assert answer.headers["x-ratelimit-limit-requests"] == "60"


async def test_the_same_key_twice_is_one_key() -> None:
    world = World()
    secret = world.table.add()
    async with world.serving() as http:
        assert (await http.get("/v1/models", headers={**bearer(secret), "x-moondream-auth": secret})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic a2ltOnNlY3JldA=="},
        {"authorization": f"Token {new_secret()}"},
        {"authorization": new_secret()},
        {"x-moondream-auth": "  "},
        {"api-key": new_secret()},
        {"cookie": f"key={new_secret()}"},
    ],
)
async def test_no_key(headers: dict[str, str]) -> None:
    world = World()
    async with world.serving() as http:
        refused(await http.post(CHAT, headers=headers), 401, None, NO_KEY)
    assert not world.failed.count


SHAPES: dict[str, str | bytes] = {
    "unknown": new_secret(),
    "of another service": "sk-" + "a" * 48,
    "in capitals": new_secret().upper(),
    "too short": new_secret()[:-1],
    "too long": new_secret() + "a",
    "a megabyte": "gr-" + "a" * 2**20,
    "with a blank": new_secret()[:20] + " " + new_secret()[21:],
    "with a tab": new_secret()[:20] + "\t" + new_secret()[21:],
    "with a zero": new_secret()[:20] + "\0" + new_secret()[21:],
    "in UTF-8": "gr-" + "é" * 43,
    "in wide digits": "gr-" + "\N{FULLWIDTH DIGIT ONE}" * 43,
    "in bytes that are no text": b"gr-" + b"\xff" * 43,
    "a placeholder": "none",
    "in quotes": f'"{new_secret()}"',
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_wrong_key(shape: str) -> None:
    world = World()
    world.table.add()
    given = SHAPES[shape]
    value = b"Bearer " + (given if isinstance(given, bytes) else given.encode())
    async with world.serving() as http:
        refused(await http.post(CHAT, headers=[(b"authorization", value)]), 401, "invalid_api_key", WRONG_KEY)


@pytest.mark.parametrize("state", [{"revoked_at": 1}, {"spec": KeySpec("camera", expires_at=1)}], ids=str)
async def test_a_key_that_is_good_no_more(state: dict[str, Any]) -> None:
    world = World()
    secret = world.table.add(**state)
    async with world.serving() as http:
        refused(await http.post(CHAT, headers=bearer(secret)), 401, "invalid_api_key", WRONG_KEY)


async def test_a_key_expires_at_its_time_while_it_is_remembered() -> None:
    world = World()
    secret = world.table.add(KeySpec("camera", expires_at=5000))
    now = [4.999]
    async with world.serving(clock=lambda: now[0]) as http:
        assert (await http.post(CHAT, headers=bearer(secret))).status_code == 200
        now[0] = 5.0
        refused(await http.post(CHAT, headers=bearer(secret)), 401, "invalid_api_key", WRONG_KEY)


async def test_several_keys() -> None:
    world = World()
    first, second = world.table.add(), world.table.add()
    both = [
        [("authorization", f"Bearer {first}"), ("authorization", f"Bearer {second}")],
        [("authorization", f"Bearer {first}"), ("x-moondream-auth", second)],
        [("x-moondream-auth", f"{first}"), ("x-moondream-auth", new_secret())],
    ]
    async with world.serving() as http:
        for headers in both:
            refused(await http.post(CHAT, headers=headers), 401, "invalid_api_key", SEVERAL)


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz", "/openapi.json", "/v1/schemas/grounding.json"])
async def test_what_is_open_needs_no_key(path: str) -> None:
    world = World()
    async with world.serving() as http:
        for headers in ({}, bearer("wrong"), bearer(new_secret())):
            assert (await http.get(path, headers=headers)).json() == {"key": None, "caller": None}


@pytest.mark.parametrize(
    "path",
    ["/health/", "//health", "/health/../v1/models", "/HEALTH", "/v1/models", "/nothing", "/metrics", "/v1/status", "/",
     "/v1/schemas/grounding.json/x", "/openapi.json%2f", "/%68ealth/x"],
)  # fmt: skip
async def test_nothing_else_is_open(path: str) -> None:
    async with World().serving() as http:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"):
            answer = await http.request(method, httpx.URL(f"http://router{path}"))
            assert answer.status_code == 401, method


SCOPES: list[tuple[str, set[Scope]]] = [
    ("/v1/admin/keys", {"admin"}),
    ("/v1/admin", {"admin"}),
    ("/v1/status", {"admin", "monitor"}),
    ("/metrics", {"admin", "monitor"}),
    ("/v1/key", {"admin", "monitor", "inference"}),
    ("/v1/models", {"inference"}),
    (CHAT, {"inference"}),
    ("/v1/files", {"inference"}),
    ("/v1/adminx", {"inference"}),
    ("/nothing", {"inference"}),
    ("/v1/admin/keys%0a", {"admin"}),
    ("/v1/status%0a", {"admin", "monitor"}),
    ("/metrics%0A", {"admin", "monitor"}),
    ("/v1/%6detrics", {"inference"}),
    ("/v1/%61dmin/keys", {"admin"}),
]


@pytest.mark.parametrize(("path", "allowed"), SCOPES)
@pytest.mark.parametrize("scope", ["inference", "admin", "monitor"])
async def test_what_a_key_is_for(path: str, allowed: set[Scope], scope: Scope) -> None:
    world = World()
    secret = world.table.add(KeySpec("camera", scopes=frozenset({scope})))
    async with world.serving() as http:
        answer = await http.get(path, headers=bearer(secret))
    if scope in allowed:
        assert answer.status_code in (200, 404)
    else:
        words = " or ".join(sorted(allowed))
        refused(answer, 403, "key_not_allowed", f"This API key is for {scope}; this URL asks for {words}.")


@pytest.mark.parametrize("path", ["/v1/admin/keys", "/v1/status", "/metrics", "/metrics%0a"])
async def test_what_a_key_is_for_below_a_prefix(path: str) -> None:
    """A server may put the whole application below one: routes are found behind it."""
    world = World()
    secret = world.table.add()
    keyring = world.keyring()
    transport = httpx.ASGITransport(world.app(keyring), root_path="/vlm")
    async with keyring.running(), httpx.AsyncClient(transport=transport, base_url="http://router") as http:
        assert (await http.get(f"/vlm{path}", headers=bearer(secret))).status_code == 403
        assert (await http.get("/vlm/v1/models", headers=bearer(secret))).status_code == 200
        assert (await http.get("/vlm/health")).status_code == 200
        assert (await http.get("/vlm/v1/models")).status_code == 401


ORIGINS = frozenset({"https://app.example.com"})


@pytest.mark.parametrize(
    ("origins", "sent", "let_in"),
    [
        (ORIGINS, [], True),
        (ORIGINS, ["https://app.example.com"], True),
        (ORIGINS, ["https://other.example.com"], False),
        (ORIGINS, ["https://app.example.com.evil.com"], False),
        (ORIGINS, ["null"], False),
        (ORIGINS, [""], False),
        (ORIGINS, ["https://app.example.com", "https://other.example.com"], False),
        (None, ["https://other.example.com"], True),
    ],
)
async def test_web_pages_of_a_key(origins: frozenset[str] | None, sent: list[str], let_in: bool) -> None:
    world = World(settings={"allowed_origins": ("*",)})
    secret = world.table.add(KeySpec("camera", origins=origins))
    async with world.serving() as http:
        headers = [("authorization", f"Bearer {secret}"), *(("origin", one) for one in sent)]
        answer = await http.post(CHAT, headers=headers)
    if let_in:
        assert answer.status_code == 200
    else:
        refused(answer, 403, "origin_not_allowed", "This API key may not be used by this web page (Origin).")


async def test_a_page_reads_why_it_was_refused() -> None:
    world = World(settings={"allowed_origins": ("https://app.example.com",)})
    async with world.serving() as http:
        origin = {"origin": "https://app.example.com"}
        asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        assert (await http.options(CHAT, headers=asked)).status_code == 200
        answer = await http.post(CHAT, headers={**origin, **bearer(new_secret())})
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        refused(answer, 401, "invalid_api_key", WRONG_KEY)


async def test_too_many_wrong_keys_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "SUSPECT_QUESTIONS_PER_S", 1)
    world = World()
    good, unused = world.table.add(), world.table.add()
    async with world.serving() as http:
        assert (await http.post(CHAT, headers=bearer(good))).status_code == 200
        for _ in range(world.failed.most):
            refused(await http.post(CHAT, headers=bearer(new_secret())), 401, "invalid_api_key", WRONG_KEY)
        asked = world.table.found.total()
        began = time.monotonic()
        for _ in range(50):
            answer = await http.post(CHAT, headers=bearer(new_secret()))
            refused(answer, 429, "rate_limit_exceeded", "Too many wrong keys.", "requests")
            assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("13", "12300")
        most = 2 + int(time.monotonic() - began)
        assert world.table.found.total() - asked <= most, "the database is spared"
        assert (await http.post(CHAT, headers=bearer(good))).status_code == 200, "whoever was let in before still is"

        async def is_let_in() -> bool:
            return (await http.post(CHAT, headers=bearer(unused))).status_code == 200

        await eventually(is_let_in)
        assert world.failed.count.total() == world.failed.most, "what is refused unseen is not counted"


async def test_a_wrong_key_that_is_sent_for_ever_keeps_nobody_else_out() -> None:
    """All clients of a proxy have its address."""
    world = World()
    wrong = new_secret()
    async with world.serving() as http:
        for _ in range(200):
            assert (await http.post(CHAT, headers=bearer(wrong))).status_code in (401, 429)
        for _ in range(10):
            assert (await http.post(CHAT, headers=bearer(world.table.add()))).status_code == 200


async def test_without_an_answer_of_the_database() -> None:
    world = World()
    secret = world.table.add()
    world.table.fails = True
    async with world.serving(patience_s=0.05) as http:
        answer = await http.post(CHAT, headers=bearer(secret))
        words = "API keys cannot be checked at the moment; try again."
        refused(answer, 503, "accounts_unavailable", words, "server_error")
        assert answer.headers["retry-after"] == "1"
        assert (await http.get("/health")).status_code == 200


async def test_a_body_is_not_read_of_a_request_without_a_key() -> None:
    world = World(settings={"max_body_bytes": 10})
    secret = world.table.add()
    async with world.serving() as http:
        refused(await http.post(CHAT, content=json.dumps([0] * 100)), 401, None, NO_KEY)
        answer = await http.post(CHAT, content=json.dumps([0] * 100), headers=bearer(secret))
        assert answer.status_code == 413
