"""The head of a cluster is lost with its power, and comes back: clients notice nothing of either.

Ray keeps what the head must know in Redis. Replicas and the proxy are on another node, and go on without a head.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.chaos.nodes import HOST, Node, started
from router.ingress import environment
from serve_args.cluster_environment import CLUSTER
from tests.deployments.client import Question
from tests.deployments.system import ROOT, free_port
from tests.deployments.test_changes import ADDED, UPDATED, Load, model
from tests.router.cluster import WITHOUT_TOKEN
from tests.router.test_haproxy import free_ports
from tests.router.test_serve import eventually

REDIS = shutil.which("redis-server")

pytestmark = [
    pytest.mark.ray,
    pytest.mark.nodes,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="HAProxy comes with Ray on Linux alone"),
    pytest.mark.skipif(REDIS is None, reason="there is no redis-server on this machine (Debian: apt install it)"),
]

PASSWORD = "RAY_REDIS_PASSWORD"
"""A name that Ray uses within; `ray start` takes the password as an option alone."""

logger = logging.getLogger(__name__)

CLIENTS = 2
"""Of whole answers, and as many of streams."""
AWAY_S = 30.0
"""How long the head stays away: longer than the router waits for the controller, and than Serve's health checks."""
PATIENCE_S = 240.0

DEPLOY = """
import json, sys, time
import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
address, port, patience_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ray.init(address=address, namespace="serve", log_to_driver=False)
serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": port})
config = json.load(sys.stdin)
_get_global_client().deploy_apps(ServeDeploySchema.model_validate(config))
names = {one["name"] for one in config["applications"]}
end = time.monotonic() + patience_s
while {name for name, one in serve.status().applications.items() if one.status == "RUNNING"} != names:
    assert time.monotonic() < end, serve.status()
    time.sleep(0.2)
"""
"""Deploys what comes by stdin, and returns when it runs. A process of its own: Ray's drivers end with the head."""


def config(*models: dict[str, Any]) -> dict[str, Any]:
    """With places on nodes that have CPUs, which the head has not."""
    args = {"required_models": [UPDATED], "request_timeout_s": 60, **WITHOUT_TOKEN}
    deployed = {"name": "Router", "max_ongoing_requests": 100, "health_check_period_s": 2}
    router = {"name": "router", "route_prefix": "/", "import_path": "router.app:build", "args": args}
    applications = [{**router, "deployments": [deployed]}, *models]
    for one in applications:
        one["deployments"][0]["ray_actor_options"] = {"num_cpus": 0.1}
    return {"applications": applications}


@contextmanager
def redis(folder: Path) -> Iterator[Mapping[str, str]]:
    """A server of our own; yields the variables with which a head finds it."""
    port, password = free_port(), secrets.token_hex(16)
    options = ("--bind", HOST, "--port", str(port), "--requirepass", password, "--dir", str(folder), "--save", "")
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen([str(REDIS), *options], stdout=log, stderr=log)
    try:
        eventually(lambda: _is_open(port))
        yield {
            "RAY_REDIS_ADDRESS": f"{HOST}:{port}",
            PASSWORD: password,
            "RAY_external_storage_namespace": "gigarouter",
        }
    finally:
        server.terminate()
        server.wait(30)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


class Machines:
    """A head without replicas and a worker with all of them."""

    def __init__(self, folder: Path, environment: Mapping[str, str], redis: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._redis = redis
        self._port = free_port()
        self._proxy, worker_proxy = free_port(), free_port()
        self.url = f"http://{HOST}:{worker_proxy}"
        self._started: list[Node] = []
        self.head = self.start_head()
        own = {"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(worker_proxy)}
        self._start("worker", {**environment, **own}, f"--address={HOST}:{self._port}", "--num-cpus=1")

    def start_head(self) -> Node:
        """At the address that the worker knows, with the same Redis, and a folder of its own as on a new machine."""
        folder = Path(tempfile.mkdtemp(prefix="h", dir=self._folder))
        options = (
            "--head", f"--port={self._port}", f"--temp-dir={folder}", "--include-dashboard=false",
            f"--ray-client-server-port={free_port()}", "--num-cpus=0", f"--redis-password={self._redis[PASSWORD]}",
        )  # fmt: skip
        return self._start("head", {**self._environment, **self._redis}, *options)

    def _start(self, name: str, environment: Mapping[str, str], *options: str) -> Node:
        self._started.append(started(lambda: Node(name, options, self._folder, {**environment, **_exporters()})))
        return self._started[-1]

    def deploy(self, config: dict[str, Any]) -> None:
        """Return when all of it runs."""
        address, patience = f"{HOST}:{self._port}", str(PATIENCE_S)
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DEPLOY, address, str(self._proxy), patience],
            input=json.dumps(config), text=True, cwd=ROOT, env={**os.environ, **self._environment}, check=True,
        )  # fmt: skip

    def end(self) -> None:
        for node in self._started:
            node.kill()


def _exporters() -> dict[str, str]:
    """Ports of HAProxy's that each node of this machine must have for itself."""
    return {f"RAY_SERVE_{name}_PORT": str(free_port()) for name in ("HAPROXY_STATS", "HAPROXY_METRICS")}


@pytest.fixture
def machines() -> Iterator[Machines]:
    found = {
        **CLUSTER, **environment(config()), **free_ports(),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
        **{f"RAY_SERVE_PROXY_{check}_CHECK_TIMEOUT_S": "120" for check in ("READY", "HEALTH")},  # of a busy machine
        "RAY_raylet_start_wait_time_s": "120",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        "RAY_AUTH_MODE": "disabled",
    }  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp", ignore_cleanup_errors=True) as name,
        ExitStack() as stack,
    ):
        nodes = Machines(Path(name), found, stack.enter_context(redis(Path(name))))
        stack.callback(nodes.end)
        nodes.deploy(config(model(UPDATED)))
        eventually(lambda: httpx.get(f"{nodes.url}/readyz", timeout=60).status_code == 200, PATIENCE_S)
        yield nodes


def test_a_lost_head_costs_no_request_and_what_comes_back_can_be_changed(machines: Machines) -> None:
    with Load(machines.url, [Question(UPDATED)] * CLIENTS) as load:
        load.goes_on()
        said = Said(load, "before")
        eventually(lambda: load.in_flight)
        in_flight = len(load.in_flight)
        machines.head.kill()
        lost = time.monotonic()
        while time.monotonic() < lost + AWAY_S:
            load.goes_on(1)
        assert load.failed == []
        [shown] = httpx.get(f"{machines.url}/v1/models", timeout=60).json()["data"]
        assert shown["status"] == {"ready": True, "detail": "running"}
        said.say(f"away, {in_flight} in flight when it was lost")

        machines.head = machines.start_head()
        load.goes_on()
        assert load.failed == []
        said.say("back")
        machines.deploy(config(model(UPDATED), model(ADDED, UPDATED)))
        eventually(lambda: ask(machines, ADDED).status_code == 200, PATIENCE_S)
        load.goes_on()
        said.say("a model added")
    assert load.failed == []


class Said:
    """Logs what was counted in each phase (`--log-cli-level=INFO`)."""

    def __init__(self, load: Load, first: str) -> None:
        self._load = load
        self._answered, self._since = 0, time.monotonic()
        self.say(first)

    def say(self, phase: str) -> None:
        answered, now = self._load.answered, time.monotonic()
        counted, took = answered - self._answered, now - self._since
        failed, longest = len(self._load.failed), self._load.longest_s
        logger.info("%s: %.1f s, %d answered, %d failed, longest %.2f s", phase, took, counted, failed, longest)
        self._answered, self._since, self._load.longest_s = answered, now, 0.0


def ask(machines: Machines, name: str) -> httpx.Response:
    return httpx.post(f"{machines.url}/v1/chat/completions", json=Question(name).body(), timeout=60)
