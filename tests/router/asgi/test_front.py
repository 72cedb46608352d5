"""Who is let in, how the body arrives, and what becomes of Serve's own answers."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from router.asgi.front import LINGER_S, LINGERING, PASSED_KEY, Front
from router.asgi.intake import PACE_S
from router.asgi.room import SHARE_KEY, UNCOUNTED_BYTES
from router.config import RouterConfig
from tests.clock import CLOCKED
from tests.router.connection import Application, Connection, Part, scope_of

pytestmark = pytest.mark.anyio

KIB = 1024
GOOD = {"host": "127.0.0.1:8000"}


@pytest.fixture
def anyio_backend() -> Any:
    return CLOCKED


def now() -> float:
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Let everything that can happen at this time happen."""
    await asyncio.sleep(0.001)


def sending(size: int, **headers: str) -> Connection:
    """A request with a body of ``size`` bytes in parts of 100 KiB."""
    body = bytes(size)
    parts: list[Part] = [body[start : start + 100 * KIB] for start in range(0, size, 100 * KIB)]
    return Connection(scope_of(content_length=str(size), **GOOD, **headers), parts)


def held(size: int) -> Connection:
    """A request that sends ``size`` bytes of a body and then nothing."""
    return Connection(scope_of(transfer_encoding="chunked", **GOOD), [bytes(size)], ends=False)


def started(connection: Connection, front: Front) -> asyncio.Task[Connection]:
    return asyncio.create_task(connection.through(front))


# Bodies


async def test_a_body_arrives_in_one_message_after_all_of_it_is_there() -> None:
    app = Application()
    parts: list[Part] = [b"one ", 4.0, b"two ", 4.0, b"three"]
    client = await Connection(scope_of(content_length="13", **GOOD), parts).through(Front(app, RouterConfig()))
    assert client.body == b"one two three"
    assert app.messages == [{"type": "http.request", "body": b"one two three", "more_body": False}]


async def test_after_the_body_the_application_learns_that_the_client_leaves() -> None:
    seen: list[str] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"], (await receive())["type"]])

    client = Connection(scope_of(**GOOD), [b"all"], leaves=True)

    async def receive() -> Message:
        return {"type": "http.disconnect"} if client.taken else await client.receive()

    await Front(app, RouterConfig())(client.scope, receive, client.send)
    assert seen == ["http.request", "http.disconnect", "http.disconnect"]
    assert not client.sent  # nobody is there to read it


async def test_a_client_that_leaves_before_its_body_is_there_reaches_nobody() -> None:
    app = Application()
    client = Connection(scope_of(content_length="9", **GOOD), [b"half"], ends=False, leaves=True)
    await client.through(Front(app, RouterConfig()))
    assert not app.scopes
    assert not client.sent


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_refused_and_not_kept(announced: bool) -> None:
    headers = {"content_length": "2001"} if announced else {"transfer_encoding": "chunked"}
    parts: list[Part] = [bytes(1000)] * 50
    client = Connection(scope_of(**GOOD, **headers), parts)
    await client.through(Front(Application(), RouterConfig(max_body_bytes=2000)))
    assert (client.status, client.code) == (413, "request_too_large")
    assert client.headers["connection"] == "close"
    assert client.taken == 50_000  # read and dropped, so that the client comes to reading the answer


async def test_a_client_that_is_refused_may_go_on_sending_for_a_while_only() -> None:
    began = now()
    endless: list[Part] = [bytes(1000), 1.0] * 1000
    client = Connection(scope_of(content_length="5000", **GOOD), endless)
    await client.through(Front(Application(), RouterConfig(max_body_bytes=2000)))
    assert client.code == "request_too_large"
    assert now() - began == pytest.approx(LINGER_S)


async def test_what_a_refused_client_has_sent_is_freed_while_it_goes_on_sending() -> None:
    front = Front(Application(), RouterConfig(max_total_body_bytes=20 * KIB * KIB))
    parts: list[Part] = [bytes(KIB * KIB) for _ in range(25)]
    client = Connection(scope_of(transfer_encoding="chunked", **GOOD), [*parts, 60.0], ends=False)
    tracemalloc.start()
    try:
        lingering = started(client, front)
        await settle()
        assert client.code == "overloaded"
        assert tracemalloc.get_traced_memory()[0] < KIB * KIB
    finally:
        tracemalloc.stop()
    await lingering


async def test_few_clients_at_a_time_may_go_on_sending() -> None:
    front = Front(Application(), RouterConfig(max_body_bytes=2000))
    began = now()
    clients = [Connection(scope_of(content_length="5000", **GOOD), [60.0]) for _ in range(LINGERING + 1)]
    waiting = [started(client, front) for client in clients]
    done, _ = await asyncio.wait(waiting, timeout=0.001)
    assert len(done) == 1
    await asyncio.gather(*waiting)
    assert now() - began == pytest.approx(LINGER_S)
    assert {client.code for client in clients} == {"request_too_large"}


async def test_a_body_that_stops_is_given_up_in_the_contract() -> None:
    began = now()
    client = await held(100).through(Front(Application(), RouterConfig()))
    assert (client.status, client.code) == (408, "request_timeout")
    assert client.headers["connection"] == "close"
    assert now() - began == pytest.approx(PACE_S)


async def test_a_body_that_never_begins_is_given_up() -> None:
    began = now()
    client = Connection(scope_of(content_length="9", **GOOD), [], ends=False)
    assert (await client.through(Front(Application(), RouterConfig()))).status == 408
    assert now() - began == pytest.approx(PACE_S)


async def test_a_body_below_the_pace_is_given_up_and_one_above_it_is_read() -> None:
    config = RouterConfig(min_body_bytes_per_s=10, body_timeout_s=1000)
    for each_second, status in ((9, 408), (12, 200)):
        parts: list[Part] = [bytes(each_second), 1.0] * 100
        client = Connection(scope_of(transfer_encoding="chunked", **GOOD), [*parts, b"end"])
        assert (await client.through(Front(Application(), config))).status == status


async def test_a_body_has_an_end_even_at_a_good_pace() -> None:
    began = now()
    client = Connection(scope_of(transfer_encoding="chunked", **GOOD), [bytes(10_000), 1.0] * 100)
    await client.through(Front(Application(), RouterConfig(body_timeout_s=30)))
    assert client.status == 408
    assert now() - began == pytest.approx(30)


# All bodies together


async def test_the_bytes_of_all_bodies_are_bounded_and_come_back() -> None:
    app = Application()
    app.answers.clear()
    front = Front(app, RouterConfig(max_total_body_bytes=500 * KIB))
    first = started(sending(300 * KIB + UNCOUNTED_BYTES), front)
    await settle()
    refused = sending(201 * KIB + UNCOUNTED_BYTES)
    await refused.through(front)
    assert (refused.status, refused.code) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    second = started(sending(200 * KIB + UNCOUNTED_BYTES), front)
    await settle()
    app.answers.set()
    assert [(await task).status for task in (first, second)] == [200, 200]
    assert (await sending(500 * KIB + UNCOUNTED_BYTES).through(front)).status == 200


async def test_a_body_that_grows_beyond_what_is_left_is_refused() -> None:
    front = Front(Application(), RouterConfig(max_total_body_bytes=500 * KIB))
    holding = started(held(400 * KIB), front)
    await settle()
    client = Connection(scope_of(transfer_encoding="chunked", **GOOD), [bytes(100 * KIB)] * 10)
    await client.through(front)
    assert (client.status, client.code) == (503, "overloaded")
    assert (await holding).status == 408
    assert (await sending(500 * KIB).through(front)).status == 200


async def test_small_bodies_are_read_when_large_ones_have_taken_all_bytes() -> None:
    front = Front(Application(), RouterConfig(max_total_body_bytes=400 * KIB))
    holding = started(held(400 * KIB + UNCOUNTED_BYTES), front)
    await settle()
    assert (await sending(UNCOUNTED_BYTES).through(front)).status == 200
    assert (await sending(UNCOUNTED_BYTES + 1).through(front)).status == 503
    holding.cancel()


async def test_the_bytes_come_back_however_a_request_ends() -> None:
    config = RouterConfig(max_total_body_bytes=400 * KIB, max_body_bytes=350 * KIB, max_open_bodies=1, max_requests=1)

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        raise RuntimeError("a bug")

    front = Front(app, config)
    endings = [
        sending(300 * KIB),
        held(300 * KIB),
        Connection(scope_of(transfer_encoding="chunked", **GOOD), [bytes(300 * KIB)], ends=False, leaves=True),
        Connection(scope_of(transfer_encoding="chunked", **GOOD), [bytes(300 * KIB), bytes(100 * KIB)]),
    ]
    for ending in endings:
        await ending.through(front)
    cancelled = started(held(300 * KIB), front)
    await settle()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert (await sending(300 * KIB).through(front)).code == "internal_error"


# How many


async def test_slow_bodies_do_not_occupy_the_router() -> None:
    front = Front(Application(), RouterConfig(max_open_bodies=5, max_requests=1))
    slow = [started(held(1), front) for _ in range(4)]
    await settle()
    assert (await sending(10).through(front)).status == 200
    fifth = started(held(1), front)
    await settle()
    refused = await sending(10).through(front)
    assert (refused.status, refused.code) == (503, "overloaded")
    assert {(await task).status for task in [*slow, fifth]} == {408}
    assert (await sending(10).through(front)).status == 200


async def test_too_many_requests_are_refused_before_their_bodies_are_read() -> None:
    app = Application()
    app.answers.clear()
    front = Front(app, RouterConfig(max_requests=1))
    first = started(sending(10), front)
    await settle()
    refused = Connection(scope_of(content_length="10", **GOOD), [60.0])
    await asyncio.wait([started(refused, front)], timeout=0.001)
    assert (refused.status, refused.code) == (503, "overloaded")
    app.answers.set()
    assert (await first).status == 200
    assert (await sending(10).through(front)).status == 200


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/health", "/v1/status", "/metrics", "/-/healthz", "/-/routes"]
)
async def test_the_state_is_answered_whatever_else_waits_and_without_a_body(path: str) -> None:
    app = Application()
    app.answers.clear()
    front = Front(app, RouterConfig(max_requests=1, max_open_bodies=1))
    others = [started(sending(10), front), started(held(1), front)]
    await settle()
    health = started(Connection(scope_of(path, transfer_encoding="chunked", **GOOD), [bytes(10)] * 3), front)
    await settle()
    app.answers.set()
    assert (await health).status == 200
    assert (await health).body == b""
    await asyncio.gather(*others)


# Other sites


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("127.0.0.1:8000", None, None),
        ("127.0.0.1:9000", None, None),  # a forwarded port
        ("LOCALHOST:8000", None, None),
        ("localhost", None, None),
        ("[::1]:8000", None, None),
        ("models.example:8000", None, None),  # allowed by the setting
        (None, None, None),  # HTTP/1.0; every browser sends one
        ("127.0.0.1:8000", "http://127.0.0.1:8000", None),
        ("localhost:8000", "http://localhost:8000", None),
        ("127.0.0.1:8000", "http://127.0.0.1:3000", "origin_not_allowed"),  # from port to port
        ("127.0.0.1:8000", "http://localhost:8000", "origin_not_allowed"),
        ("127.0.0.1:8000", "https://127.0.0.1:8000", "origin_not_allowed"),
        ("127.0.0.1:8000", "https://evil.example", "origin_not_allowed"),
        ("127.0.0.1:8000", "null", "origin_not_allowed"),
        ("127.0.0.1:8000", "", "origin_not_allowed"),
        (None, "http://", "origin_not_allowed"),
        ("evil.example", None, "host_not_allowed"),
        ("evil.example:8000", "http://evil.example:8000", "host_not_allowed"),  # DNS rebinding
        ("127.0.0.1.evil.example", None, "host_not_allowed"),
        ("localhost:8000@evil.example", None, "host_not_allowed"),
        ("127.0.0.1:x", None, "host_not_allowed"),
        ("", None, "host_not_allowed"),
    ],
)
async def test_requests_of_other_sites_are_refused(host: str | None, origin: str | None, code: str | None) -> None:
    headers = {"host": host, "origin": origin}
    scope = scope_of(content_length="3", **{name: value for name, value in headers.items() if value is not None})
    app = Application()
    client = await Connection(scope, [b"abc"]).through(Front(app, RouterConfig(allowed_hosts=("models.example",))))
    if code is None:
        assert (client.status, client.body) == (200, b"abc")
    else:
        assert (client.status, client.code) == (403, code)
        assert not app.scopes


async def test_every_host_of_several_must_be_ours() -> None:
    scope = scope_of(**GOOD)
    scope["headers"].append((b"host", b"evil.example"))
    assert (await Connection(scope).through(Front(Application(), RouterConfig()))).code == "host_not_allowed"
    scope = scope_of(**GOOD)
    scope["headers"].append((b"origin", b"http://127.0.0.1:8000"))
    scope["headers"].append((b"origin", b"http://evil.example"))
    assert (await Connection(scope).through(Front(Application(), RouterConfig()))).code == "origin_not_allowed"


PAGE = "https://app.example.com"
WITH_CORS = RouterConfig(allowed_origins=(PAGE,))


async def test_a_page_that_an_operator_allows_may_ask_and_read_the_answer() -> None:
    client = await Connection(scope_of(**GOOD, origin=PAGE)).through(Front(Application(), WITH_CORS))
    assert (client.status, client.headers["access-control-allow-origin"]) == (200, PAGE)
    for name in ("x-request-id", "retry-after", "x-should-retry"):  # of which SDKs in pages read the last two
        assert name in client.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in client.headers


async def test_a_browser_may_ask_beforehand_for_a_page_that_is_allowed() -> None:
    scope = scope_of(**GOOD, origin=PAGE, access_control_request_method="POST", access_control_request_headers="a")
    app = Application()
    client = await Connection({**scope, "method": "OPTIONS"}).through(Front(app, WITH_CORS))
    assert (client.status, client.headers["access-control-allow-origin"]) == (200, PAGE)
    assert "POST" in client.headers["access-control-allow-methods"]
    assert not app.scopes


async def test_other_pages_are_refused_as_before() -> None:
    for origin in ("https://app.example.com.evil", "http://app.example.com", "null"):
        client = await Connection(scope_of(**GOOD, origin=origin)).through(Front(Application(), WITH_CORS))
        assert (client.code, client.headers.get("access-control-allow-origin")) == ("origin_not_allowed", None)


async def test_an_error_can_be_read_by_a_page_that_is_allowed() -> None:
    scope = scope_of(host="evil.example", origin=PAGE)
    client = await Connection(scope).through(Front(Application(), WITH_CORS))
    assert (client.code, client.headers["access-control-allow-origin"]) == ("host_not_allowed", PAGE)


async def test_every_page_can_be_allowed() -> None:
    front = Front(Application(), RouterConfig(allowed_origins=("*",)))
    client = await Connection(scope_of(**GOOD, origin="null")).through(front)
    assert (client.status, client.headers["access-control-allow-origin"]) == (200, "*")


async def test_a_front_behind_a_front_adds_nothing() -> None:
    inner = Front(Application(), RouterConfig(allowed_origins=(PAGE,), max_requests=1))  # it looks at the request, too
    client = await Connection(scope_of(**GOOD, origin=PAGE)).through(Front(inner, WITH_CORS))
    assert [value for name, value in client.sent[0]["headers"] if name == b"access-control-allow-origin"] == [
        PAGE.encode()
    ]


@pytest.mark.parametrize("server", [("10.0.0.7", 8000), ("router", None), None])
async def test_any_host_is_fine_at_an_address_that_others_can_reach(server: tuple[str, int | None] | None) -> None:
    client = Connection({**scope_of(host="api.example.com"), "server": server})
    assert (await client.through(Front(Application(), RouterConfig()))).status == 200


@pytest.mark.parametrize("server", ["127.0.0.2", "::1", "::ffff:127.0.0.1"])
async def test_every_loopback_address_is_one(server: str) -> None:
    client = Connection({**scope_of(host="api.example.com"), "server": (server, 8000)})
    assert (await client.through(Front(Application(), RouterConfig()))).code == "host_not_allowed"


async def test_behind_haproxy_the_loopback_address_says_nothing() -> None:
    """It connects to the replicas of its own node there, whatever address and name its clients have used."""
    front = Front(Application(), RouterConfig(), behind_haproxy=True)
    assert (await Connection(scope_of(host="api.example.com")).through(front)).status == 200
    page = Connection(scope_of(host="api.example.com", origin="https://evil.example"))
    assert (await page.through(front)).code == "origin_not_allowed"


async def test_an_operator_can_allow_every_host() -> None:
    client = Connection(scope_of(host="api.example.com"))
    assert (await client.through(Front(Application(), RouterConfig(allowed_hosts=("*",))))).status == 200


async def test_health_is_not_told_to_other_sites() -> None:
    client = Connection(scope_of("/healthz", "GET", host="evil.example"))
    assert (await client.through(Front(Application(), RouterConfig()))).status == 403
    assert "connection" not in client.headers  # there is no body, so that the connection can go on


# What Serve answers


def answering(status: int, content_type: str, body: bytes = b"text of Serve") -> Any:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"content-type", content_type.encode()), (b"x-request-id", b"another")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.mark.parametrize(
    ("theirs", "ours", "code"),
    [
        (404, 503, "model_not_ready"),
        (408, 504, "timeout"),
        (429, 503, "overloaded"),
        (500, 500, "internal_error"),
        (503, 503, "overloaded"),
    ],
)
async def test_text_of_serve_becomes_an_error_in_the_contract(theirs: int, ours: int, code: str) -> None:
    client = await Connection(scope_of(**GOOD)).through(Front(answering(theirs, "text/plain"), RouterConfig()))
    assert (client.status, client.code) == (ours, code)
    assert b"Serve" not in client.body
    assert ("retry-after" in client.headers) == (ours == 503)
    assert [message["type"] for message in client.sent] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize(("status", "content_type"), [(200, "text/plain"), (404, "application/json")])
async def test_other_answers_pass(status: int, content_type: str) -> None:
    client = await Connection(scope_of(**GOOD)).through(Front(answering(status, content_type), RouterConfig()))
    assert (client.status, client.body) == (status, b"text of Serve")


async def test_serves_own_routes_answer_as_they_like() -> None:
    front = Front(answering(503, "text/plain"), RouterConfig())
    assert (await Connection(scope_of("/-/healthz", "GET", **GOOD)).through(front)).body == b"text of Serve"


async def test_an_application_that_says_nothing_is_an_error_and_one_that_stops_is_not_continued() -> None:
    async def silent(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()

    async def broken(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("secret")

    client = await Connection(scope_of(**GOOD)).through(Front(silent, RouterConfig()))
    assert (client.status, client.code) == (500, "internal_error")
    client = await Connection(scope_of(**GOOD)).through(Front(broken, RouterConfig()))
    assert len(client.sent) == 1


async def test_a_bug_behind_the_front_is_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    secret = b"\xff a secret"

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        secret.decode()

    client = await Connection(scope_of(**GOOD)).through(Front(app, RouterConfig()))
    assert (client.status, client.code) == (500, "internal_error")
    assert "UnicodeDecodeError" in caplog.text
    assert "a secret" not in caplog.text


async def test_a_refusal_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="router"):
        client = Connection(scope_of(host="evil.example", x_request_id="mine"))
        await client.through(Front(Application(), RouterConfig()))
    [line] = caplog.messages
    assert line.startswith("POST '/v1/chat/completions' 403 ")


# The rest


async def test_a_request_passes_a_second_front_unchanged() -> None:
    app = Application()
    inner = Front(app, RouterConfig(max_requests=1))  # with the settings of the first, it would not look at it
    client = await sending(300 * KIB, x_request_id="mine").through(Front(inner, RouterConfig()))
    assert len(client.body) == 300 * KIB
    assert dict(app.scopes[0]["headers"])[b"x-request-id"] == b"mine"


@pytest.mark.parametrize("can_answer", [True, False])
async def test_web_sockets_are_refused(can_answer: bool) -> None:
    extensions: dict[str, Any] = {"websocket.http.response": {}} if can_answer else {}
    client = Connection({"type": "websocket", "path": "/", "headers": [], "extensions": extensions})
    await client.through(Front(Application(), RouterConfig()))
    if can_answer:
        assert (client.status, client.code) == (400, "invalid_http")
    else:
        assert client.sent == [{"type": "websocket.close", "code": 1008}]


async def test_other_protocols_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    await Connection({"type": "lifespan"}).through(Front(app, RouterConfig()))
    assert seen == ["lifespan"]


# Two fronts


async def test_a_second_front_with_the_same_settings_lets_pass_what_the_first_has_let_in() -> None:
    app = Application()
    outer = Front(Front(app, RouterConfig(max_requests=1)), RouterConfig(max_requests=1))
    client = await sending(10).through(outer)
    assert client.status == 200
    [message] = app.messages
    assert message["body"] == bytes(10)
    assert app.scopes[0][SHARE_KEY]._all is outer._bodies, "the second has counted it, too"


async def test_a_second_front_with_settings_of_its_own_applies_them() -> None:
    client = await sending(2 * KIB).through(
        Front(Front(Application(), RouterConfig(max_body_bytes=KIB)), RouterConfig())
    )
    assert (client.status, client.code) == (413, "request_too_large")


async def test_the_mark_of_another_process_is_none() -> None:
    import subprocess
    import sys

    config = RouterConfig(max_body_bytes=KIB)
    marks = (
        "from router.asgi.front import Front; from router.config import RouterConfig; "
        f"print(Front(None, RouterConfig(max_body_bytes={KIB}))._mark)"
    )
    foreign = subprocess.run([sys.executable, "-c", marks], capture_output=True, text=True, check=True).stdout.strip()
    client = sending(2 * KIB)
    client.scope[PASSED_KEY] = foreign
    assert (await client.through(Front(Application(), config))).status == 413
