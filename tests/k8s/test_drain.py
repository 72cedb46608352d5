"""Pods as the manifests order them, played by processes of Ray in networks of their own: evicted, they lose no request.

Head and workers get the variables of the manifests and are started as KubeRay starts them. An eviction is what
Kubernetes does: SIGTERM, shortly afterwards no more new requests, and SIGKILL after the grace. Needs root, for the
networks.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.environment import variables
from deployments.local.processes import descendants
from tests.deployments.client import Question
from tests.k8s.objects import K8S, ROOT, env_of, overlay, ray_pods
from tests.k8s.test_compose import HAPROXY_FILES

pytestmark = [
    pytest.mark.ray,
    pytest.mark.nodes,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="networks of their own are a matter of Linux"),
]

BIN = Path(sys.executable).parent
MODEL = "blip-large"
START_S = 400
"""Seconds for the start of a Pod, or of a replica, on a busy machine."""
RAYLET_S, STARTS = 150, 3
"""Seconds for the start of a raylet, and how often it is tried."""
PATIENT = {"RAY_raylet_start_wait_time_s": str(RAYLET_S), "RAY_agent_register_timeout_ms": f"{RAYLET_S}000"}
"""A raylet ends where its agents take long, as they do on a busy machine."""
NOTICED_S = 1.0
"""Seconds from the SIGTERM until new requests go elsewhere: the Service learns of an eviction while the Pod stops."""
CLIENTS, BETWEEN_S = 3, 0.3
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}


def config(folder: Path) -> Path:
    """The config of kind with two routers, each on a Pod of its own as in production, and two replicas of one model."""
    found = yaml.safe_load((K8S / "overlays/kind/serve_config.yaml").read_text("utf-8"))
    router, *models = found["applications"]
    model = next(one for one in models if one["name"] == MODEL)
    router["args"]["required_models"] = [MODEL]
    router["deployments"][0].update(num_replicas=2, max_replicas_per_node=1, max_surge_percent=0)
    model["deployments"] = [{**model["deployments"][0], "num_replicas": 2}]
    model["args"] = {**model["args"], "checkpoint": str(ROOT / "miniatures" / MODEL)}
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump({**found, "applications": [router, model]}), "utf-8")
    return path


class Network:
    """A bridge, and a network of its own for each Pod."""

    def __init__(self) -> None:
        self.mark = f"{os.getpid() % 100_000}"
        self.prefix = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self._made: list[Sequence[str]] = []

    def __enter__(self) -> Network:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("needs root and the command ip, to make networks")
        try:
            self._ip("link", "add", f"gr{self.mark}", "type", "bridge")
        except subprocess.CalledProcessError:
            pytest.skip("this machine lets nobody make a network")
        self._made.append(("link", "del", f"gr{self.mark}"))
        self._ip("addr", "add", f"{self.prefix}.254/24", "dev", f"gr{self.mark}")
        self._ip("link", "set", f"gr{self.mark}", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for command in reversed(self._made):
            subprocess.run(["ip", *command], capture_output=True, check=False)

    def add(self, number: int) -> tuple[str, str]:
        """(name, address) of another network."""
        name, outer, inner = (f"gr{self.mark}{kind}{number}" for kind in ("n", "o", "i"))
        self._ip("netns", "add", name)
        self._made.append(("netns", "del", name))
        self._ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        self._ip("link", "set", inner, "netns", name)
        self._ip("link", "set", outer, "master", f"gr{self.mark}", "up")
        address = f"{self.prefix}.{number}"
        for command in (
            ("addr", "add", f"{address}/24", "dev", inner),
            ("link", "set", inner, "up"),
            ("link", "set", "lo", "up"),
        ):
            self._ip("-n", name, *command)
        return name, address

    def _ip(self, *command: str) -> None:
        subprocess.run(["ip", *command], capture_output=True, check=True)


@dataclass
class PlayedPod:
    """A Pod: a process of Ray in a network of its own."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def answers(self, port: int, path: str) -> bool:
        """What a probe of the manifests asks."""
        try:
            return httpx.get(f"http://{self.address}:{port}{path}", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """Kill whatever is left of it."""
        for one in (*descendants(self.process.pid), self.process.pid):
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)


@dataclass
class Cluster:
    """The Pods, and the addresses that the Service has."""

    network: Network
    folder: Path
    stack: ExitStack
    pods: list[PlayedPod] = field(default_factory=list)
    endpoints: list[str] = field(default_factory=list)

    def start(self, *options: str) -> PlayedPod:
        """Start a Pod as KubeRay does: a shell, and in its place `ray start --block`."""
        number = len(self.pods) + 1
        name, address = self.network.add(number)
        command = f"ulimit -n 65536; ray start --node-ip-address={address} --block {' '.join(options)}"
        log = self.folder / f"pod-{number}.log"
        with log.open("w") as written:
            process = subprocess.Popen(
                ["ip", "netns", "exec", name, "bash", "-c", "--", command],
                env=self._environment(number), stdout=written, stderr=written, start_new_session=True,
            )  # fmt: skip
        pod = PlayedPod(address, process, log)
        self.stack.callback(pod.kill)
        self.pods.append(pod)
        return pod

    def worker(self) -> PlayedPod:
        """A worker whose raylet is up. As kubelet does, another start is tried where Ray gives up on a busy machine.

        They are started one after the other: on one machine they share Ray's folder, and would choose the same socket.
        """
        head = f"--address={self.pods[0].address}:6379"
        for _ in range(STARTS):
            pod = self.start(head, "--num-cpus=2", "--object-store-memory=100000000", "--metrics-export-port=8080")
            deadline = time.monotonic() + RAYLET_S
            while time.monotonic() < deadline and pod.process.poll() is None:
                if pod.answers(52365, "/api/healthz"):
                    return pod
                time.sleep(0.5)
            pod.kill()
        raise AssertionError(self.logs())

    def _environment(self, number: int) -> dict[str, str]:
        pod = list(ray_pods(overlay("kind")))[0 if number == 1 else 1]
        manifest: dict[str, Any] = env_of(pod.spec["containers"][0])
        own = self.folder / f"haproxy-{number}"
        own.mkdir()
        files = {variable: str(own / name) for variable, name in HAPROXY_FILES.items()}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        apart = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(self.folder)}
        return {
            **inherited,
            **variables(self.folder / "serve_config.yaml"),
            **manifest,
            **TOKEN,
            **files,
            **apart,
            **PATIENT,
        }

    def deploy(self) -> None:
        """As the operator does, at the head's dashboard."""
        url = f"http://{self.pods[0].address}:8265/api/serve/applications/"
        body = yaml.safe_load((self.folder / "serve_config.yaml").read_text("utf-8"))
        headers = {"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"}

        def accepted() -> bool:
            try:
                return httpx.put(url, json=body, headers=headers, timeout=60).status_code == 200
            except httpx.HTTPError:
                return False

        self.wait_until(accepted, "the dashboard takes the Serve config")

    def wait_until(self, holds: Any, what: str) -> None:
        deadline = time.monotonic() + START_S
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not in {START_S} s\n{self.logs()}"
            time.sleep(0.5)

    def logs(self) -> str:
        return "\n".join(f"--- {pod.log}\n{pod.log.read_text(errors='replace')[-2000:]}" for pod in self.pods)

    def admit(self, pod: PlayedPod) -> None:
        """Put a Pod into the Service when it is ready and both models answer through it."""

        def answers() -> bool:
            try:
                return pod.answers(8000, "/-/healthz") and ask(pod.address).status_code == 200
            except httpx.HTTPError:
                return False

        self.wait_until(answers, f"{pod.address} is ready")
        self.endpoints.append(pod.address)

    def evict(self, pod: PlayedPod, grace_s: float) -> float:
        """Seconds until the Pod has ended; it must not have to be killed."""
        begin = time.monotonic()
        pod.process.send_signal(signal.SIGTERM)
        time.sleep(NOTICED_S)
        self.endpoints.remove(pod.address)
        pod.process.wait(grace_s)
        return time.monotonic() - begin


def ask(address: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"http://{address}:8000/v1/chat/completions", json=Question(MODEL).body(**fields), timeout=120)


class Load:
    """Clients that ask one of the Service's Pods after the other, each time over a new connection."""

    def __init__(self, endpoints: list[str]) -> None:
        self._endpoints, self._over = endpoints, threading.Event()
        self.answers, self.failures = 0, list[str]()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]

    @contextmanager
    def running(self) -> Iterator[Load]:
        for one in self._threads:
            one.start()
        try:
            yield self
        finally:
            self._over.set()
            for one in self._threads:
                one.join()

    def _run(self, number: int) -> None:
        turn = number
        while not self._over.wait(BETWEEN_S):
            turn += 1
            address = self._endpoints[turn % len(self._endpoints)]
            try:
                answer = ask(address, stream=turn % 2 == 0)
                good = answer.status_code == 200 and (turn % 2 or "[DONE]" in answer.text)
                self._note("" if good else f"{answer.status_code}: {answer.text[-300:]}")
            except httpx.HTTPError as error:
                self._note(f"{address}: {type(error).__name__}: {error}")

    def _note(self, failure: str) -> None:
        self.answers += 1
        if failure:
            self.failures.append(failure)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as name, Network() as network, ExitStack() as stack:
        config(Path(name))
        yield Cluster(network, Path(name), stack)


def test_an_eviction_and_the_replacement_of_all_workers_lose_no_request(cluster: Cluster) -> None:
    (grace,) = {pod.spec["terminationGracePeriodSeconds"] for pod in ray_pods(overlay("gpu-prod"))}
    head = cluster.start("--head", "--dashboard-host=0.0.0.0", "--num-cpus=0", "--object-store-memory=100000000")
    cluster.wait_until(lambda: head.answers(52365, "/api/healthz"), "the head is ready")  # for which workers wait, too
    first, second = cluster.worker(), cluster.worker()
    cluster.deploy()
    for pod in (first, second):
        cluster.admit(pod)
    with Load(cluster.endpoints).running() as load:
        assert cluster.evict(first, grace) < grace
        cluster.admit(cluster.worker())
        assert cluster.evict(second, grace) < grace
    assert load.failures == []
    assert load.answers > 20
