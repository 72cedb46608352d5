"""The front before Ray Serve's own proxy: hostile connections, while other requests go on and memory is bounded."""

from __future__ import annotations

import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.local.processes import descendants
from router.app import build
from router.ingress import environment
from tests.hostile_clients import connections, head, open_files, received, send_until_refused
from tests.router.cluster import WITHOUT_TOKEN, cluster
from tests.router.test_serve import ask, deploy
from tests.router.world import CHAT, check_error

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore"),  # Ray's own warnings are not ours to fix
    pytest.mark.skipif(sys.platform != "linux", reason="looks its processes up in /proc"),
]

ARGS = {"request_timeout_s": 60, "head_timeout_s": 4, **WITHOUT_TOKEN}
MIB = 1024 * 1024
FILES = 8192
"""Open files that the tests and the proxy need, one for each connection."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    application = {"import_path": "router.app:build", "args": ARGS}
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < FILES:
        pytest.skip(f"needs {FILES} open files")
    with open_files(FILES), cluster(environment({"applications": [application]})) as free:
        from ray import serve

        deploy("blip-large")
        serve.run(build(ARGS), name="router", route_prefix="/")
        yield free


@pytest.fixture
def http(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client


def process(title: bytes) -> int:
    """The id of the process of this cluster that has this title."""
    found = [one for one in descendants(os.getpid()) if title in _read(one, "cmdline")]
    assert len(found) == 1, found
    return found[0]


def _read(process_id: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process_id}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


PROXY, ROUTER = b"ray::ProxyActor", b"ray::ServeReplica:router"


def own_mib(title: bytes) -> int:
    """The memory of a process, without what it shares with Ray's object store."""
    [line] = [line for line in _read(process(title), "status").splitlines() if line.startswith(b"RssAnon")]
    return int(line.split()[1]) // 1024


class Peak(threading.Thread):
    """The largest memory of the proxy and the router until it is asked for."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ends = threading.Event()
        self._most = {PROXY: 0, ROUTER: 0}
        self.start()

    def run(self) -> None:
        while not self._ends.wait(0.05):
            for title, most in self._most.items():
                self._most[title] = max(most, own_mib(title))

    def mib(self) -> tuple[int, int]:
        self._ends.set()
        self.join()
        return self._most[PROXY], self._most[ROUTER]


def check_that_others_are_served(http: httpx.Client) -> None:
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 200
    assert ask(http, "").status_code == 200


@pytest.mark.parametrize("number", [1200])
def test_slow_bodies_stop_nobody_and_no_replica_is_replaced(port: int, http: httpx.Client, number: int) -> None:
    router, proxy = process(ROUTER), process(PROXY)
    with connections(port, number, head("content-length: 100") + b"{") as slow:
        for _ in range(3):
            check_that_others_are_served(http)
        answers = [received(one) for one in slow]
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert all(b'"code":"request_timeout"' in answer for answer in answers)
    check_that_others_are_served(http)
    assert (process(ROUTER), process(PROXY)) == (router, proxy)


def test_slow_headers_and_idle_connections_stop_nobody_and_are_closed(port: int, http: httpx.Client) -> None:
    with connections(port, 500, head("x: y")[:-4]) as slow, connections(port, 2000, b"") as idle:
        check_that_others_are_served(http)
        assert all(received(one).startswith(b"HTTP/1.1 408 ") for one in slow)
        assert all(received(one) == b"" for one in idle)


def test_a_header_without_an_end_is_refused(port: int, http: httpx.Client) -> None:
    with connections(port, 1, head("x: y")[:-4]) as [endless]:
        assert send_until_refused(endless, b"x" * MIB, 300) < 20
        assert b'"code":"headers_too_large"' in received(endless)
    check_that_others_are_served(http)


def test_held_bodies_are_bounded_together_and_their_memory_comes_back(port: int, http: httpx.Client) -> None:
    before, peak = (own_mib(PROXY), own_mib(ROUTER)), Peak()

    def hold(connection: socket.socket) -> bytes:
        try:
            connection.sendall(bytes(29 * MIB))
        except OSError:
            return b"reset"
        return received(connection)

    with connections(port, 40, head(f"content-length: {30 * MIB}")) as held, ThreadPoolExecutor(40) as threads:
        answers = threads.map(hold, held)
        check_that_others_are_served(http)
        codes = [answer[9:12] for answer in answers]
    proxy, router = peak.mib()
    assert {b"408", b"503"} <= set(codes)
    assert proxy - before[0] < 500  # 256 MiB of bodies, and what is on the way
    assert router - before[1] < 100  # nothing of them reaches it
    eventually_back(before)


def test_the_largest_bodies_at_once_are_answered_or_refused(port: int, http: httpx.Client) -> None:
    before, peak = (own_mib(PROXY), own_mib(ROUTER)), Peak()
    body = b'{"model": "' + b"a" * (30 * MIB - 13) + b'"}'

    def post(_: int) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{port}{CHAT}", content=body, timeout=120)

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(post, range(16)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {400, 408, 503}  # not a chat request; too slow, on a busy machine; no room
    assert 400 in statuses
    proxy, router = peak.mib()
    assert proxy < 1536
    assert router < 1536
    eventually_back(before)


def eventually_back(before: tuple[int, int]) -> None:
    end = time.monotonic() + 20
    while max(own_mib(PROXY) - before[0], own_mib(ROUTER) - before[1]) > 200:
        assert time.monotonic() < end, (own_mib(PROXY), own_mib(ROUTER), before)
        time.sleep(0.2)


def test_an_endless_body_is_refused_and_not_kept(port: int, http: httpx.Client) -> None:
    before = own_mib(PROXY)
    with connections(port, 1, head("transfer-encoding: chunked")) as [endless]:
        send_until_refused(endless, b"100000\r\n" + bytes(MIB) + b"\r\n", 500)
        assert own_mib(PROXY) - before < 100
        assert b'"code":"request_too_large"' in received(endless)
    check_that_others_are_served(http)


@pytest.mark.parametrize(
    "name",
    [
        "x-request-id", "x-session-id", "serve-multiplexed-model-id", "serve_multiplexed_model_id",
        "x-request-timeout-seconds", "x-request-disconnect-disabled", "traceparent", "x-serve-router-x",
    ],
)  # fmt: skip
def test_bytes_that_serve_cannot_decode_reach_nobody(http: httpx.Client, name: str) -> None:
    answer = http.get("/v1/models", headers=[(name.encode(), b"\xff"), (b"connection", b"close")])
    assert answer.status_code == 200
    assert len(answer.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("headers", [{"x-request-timeout-seconds": "0.0001"}, {"x-request-disconnect-disabled": "?1"}])
def test_serves_own_timeout_cannot_be_set(http: httpx.Client, headers: dict[str, str]) -> None:
    assert http.get("/v1/models", headers=headers).status_code == 200


def test_other_sites_are_refused(http: httpx.Client, port: int) -> None:
    own = {"origin": f"http://127.0.0.1:{port}"}
    assert http.get("/v1/models", headers=own).status_code == 200
    for origin in (f"http://127.0.0.1:{port + 1}", "https://evil.example", "null"):
        refused = http.post(CHAT, json={}, headers={"origin": origin})
        check_error(refused, 403, "origin_not_allowed", None)
    rebound = {"host": f"evil.example:{port}", "origin": f"http://evil.example:{port}"}
    check_error(http.get("/v1/models", headers=rebound), 403, "host_not_allowed", None)
    assert http.get("/v1/models", headers={"host": "localhost:1"}).status_code == 200


def test_one_request_id_for_every_answer(http: httpx.Client) -> None:
    for headers, status in (({}, 200), ({"origin": "null"}, 403)):
        answer: Any = http.get("/v1/models", headers={**headers, "x-request-id": "mine-1"})
        assert (answer.status_code, answer.headers.get_list("x-request-id")) == (status, ["mine-1"])
