"""The router behind HAProxy, as on a cluster: what must hold at the front holds, and nothing of Serve's can be set."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from deployments.local.processes import descendants
from router.app import build
from router.ingress import environment
from serve_args.cluster_environment import CLUSTER
from tests.deployments.system import open_ports, sockets_of
from tests.hostile_clients import connections, head, received, send_until_refused
from tests.listening import kept_port
from tests.router.cluster import WITHOUT_TOKEN, cluster
from tests.router.test_front_serve import MIB, check_that_others_are_served, process
from tests.router.test_serve import ask, check_that_leaving_cancels, content, deploy, eventually
from tests.router.world import CHAT, check_error, events

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore"),  # Ray's own warnings are not ours to fix
    pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux alone"),
]

KEEP_ALIVE_S = 2  # HAProxy tells of a client that has left in the middle of a stream when the next part is written
ARGS = {
    "request_timeout_s": 60,
    "head_timeout_s": 4,
    "keep_alive_s": KEEP_ALIVE_S,
    "max_body_bytes": 2 * MIB,
    **WITHOUT_TOKEN,
}
ROUTER = b"ray::ServeReplica:router"
GOES_ON = {"x-request-disconnect-disabled": "?1"}
SPARE_PORTS = 20  # more than the replicas of this cluster take


def free_ports() -> dict[str, str]:
    """Ports that nothing else on this machine uses, for all that Serve opens."""
    names = ("HAPROXY_STATS", "HAPROXY_METRICS", "FALLBACK_PROXY_HTTP", "DIRECT_INGRESS_MIN_HTTP")
    ports = {name: kept_port() for name in names}
    ports["DIRECT_INGRESS_MAX_HTTP"] = ports["DIRECT_INGRESS_MIN_HTTP"] + SPARE_PORTS
    return {f"RAY_SERVE_{name}_PORT": str(port) for name, port in ports.items()}


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    return free_ports()


@pytest.fixture(scope="module")
def port(ports: dict[str, str]) -> Iterator[int]:
    front = environment({"applications": [{"import_path": "router.app:build", "args": ARGS}]})
    at_once = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0", "RAY_raylet_start_wait_time_s": "120"}
    optimised = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}  # an operator's, which must not break anything
    with cluster({**CLUSTER, **front, **ports, **at_once, **optimised}) as free:
        from ray import serve

        deploy("blip-large")
        serve.run(build(ARGS), name="router", route_prefix="/")
        with httpx.Client(base_url=f"http://127.0.0.1:{free}", timeout=60) as client:
            eventually(lambda: client.get("/readyz").status_code == 200)  # HAProxy learns of a replica a little later
        yield free


@pytest.fixture
def http(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client


def test_whole_answers_and_streams_come_without_serves_proxy(http: httpx.Client) -> None:
    assert content(ask(http, ""))
    assert events(ask(http, "", stream=True).text)[-1]["choices"][0]["finish_reason"] == "stop"
    process(b"haproxy\0")  # there is one


@pytest.mark.parametrize(
    "name", ["x-request-timeout-seconds", "x-request-disconnect-disabled", "x-serve-router-x", "traceparent"]
)
def test_bytes_that_serve_cannot_decode_reach_nobody(http: httpx.Client, name: str) -> None:
    answer = http.get("/v1/models", headers=[(name.encode(), b"\xff"), (b"connection", b"close")])
    assert answer.status_code == 200
    assert len(answer.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("value", ["0", "0.0001", "-1", "x"])
def test_serves_own_timeout_cannot_be_set(http: httpx.Client, value: str) -> None:
    for name in ("x-request-timeout-seconds", "x_request_timeout_seconds"):
        assert http.get("/v1/models", headers={name: value}).status_code == 200


def test_a_client_cannot_have_its_work_go_on_without_it(http: httpx.Client) -> None:
    for stream in (False, True):
        check_that_leaving_cancels(http, stream=stream, headers=GOES_ON)


def test_one_request_id_for_every_answer(http: httpx.Client) -> None:
    for headers, status in (({}, 200), ({"origin": "null"}, 403)):
        answer = http.get("/v1/models", headers={**headers, "x-request-id": "mine-1"})
        assert (answer.status_code, answer.headers.get_list("x-request-id")) == (status, ["mine-1"])


def test_bodies_are_limited(port: int, http: httpx.Client) -> None:
    check_error(http.post(CHAT, content=bytes(2 * MIB + 1)), 413, "request_too_large", None)
    with connections(port, 1, head("transfer-encoding: chunked")) as [endless]:
        send_until_refused(endless, b"100000\r\n" + bytes(MIB) + b"\r\n", 500)
        assert b'"code":"request_too_large"' in error_of(endless)
    check_that_others_are_served(http)


def test_slow_bodies_stop_nobody(port: int, http: httpx.Client) -> None:
    router = process(ROUTER)
    with connections(port, 300, head("content-length: 100") + b"{") as slow:
        check_that_others_are_served(http)
        answers = [error_of(one) for one in slow]
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert process(ROUTER) == router


def test_heads_are_limited(port: int, http: httpx.Client) -> None:
    with connections(port, 1, head("x: y")[:-4]) as [endless]:
        send_until_refused(endless, b"x" * MIB, 300)
        assert received(endless).split(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad request")  # HAProxy's own, at 64 KiB
    with connections(port, 500, head("x: y")[:-4]), connections(port, 1000, b""):
        check_that_others_are_served(http)


def test_what_haproxy_opens_is_what_the_documents_say(http: httpx.Client, port: int, ports: dict[str, str]) -> None:
    haproxy = [one for one in descendants(os.getpid()) if _name(one) == "haproxy"]
    assert haproxy
    inodes = {inode for one in haproxy for inode in sockets_of(one)}
    assert {address for address, inode in open_ports() if inode in inodes} == {"127.0.0.1", "0.0.0.0"}
    for name in ("STATS", "METRICS"):
        path = "/stats" if name == "STATS" else "/metrics"
        assert httpx.get(f"http://127.0.0.1:{ports[f'RAY_SERVE_HAPROXY_{name}_PORT']}{path}").status_code == 200


def error_of(connection: socket.socket) -> bytes:
    """The answer with an error: HAProxy passes it on, and still waits for the rest of the body."""
    answer = b""
    with suppress(ConnectionResetError):
        while b'"code":' not in answer and (part := connection.recv(65536)):
            answer += part
    return answer


def _name(process_id: int) -> str:
    try:
        with open(f"/proc/{process_id}/comm", encoding="utf-8") as comm:
            return comm.read().strip()
    except OSError:
        return ""
