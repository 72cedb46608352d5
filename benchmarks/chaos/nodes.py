"""Ray nodes on this machine, each with processes of its own that can be killed at once, as those of a lost machine.

The proxy of each has a port of its own on the loopback. Ray's own ports ask for the token. Linux only.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Protocol, TypeVar

from benchmarks import processes
from benchmarks.http.servers import ROOT
from deployments.local.processes import send

HOST = "127.0.0.1"
START_S = 180.0
STARTS = 5
"""Attempts. Ray gives the agents of a node 15 s to open their ports, and itself 30 s to find the node, and no setting
changes either (``RAY_raylet_start_wait_time_s`` is for drivers): a machine that does other work exceeds them in some
starts of ten. A port that was free may also be taken before the node listens there."""
POLL_S = 0.2
REASON_CHARS = 1500
"""Of each log that is shown where a node has not started."""
CPUS = 4
"""What Ray is told that a worker has: enough for the shares that replicas ask for."""
PORTS = ("WORKER_PROXY_HTTP", "HAPROXY_STATS", "HAPROXY_METRICS")
"""Of Serve's proxy on each node; the first is not used by the head, whose port is in the config."""
KEPT_PORTS = range(20_000, 30_000)
"""Neither Ray's workers nor this machine's outgoing connections take these, which may do so between the moment at which
a port is found free and the one at which a node listens there."""
OBJECT_STORE_BYTES = 100 * 1024**2


def free_port(number: int = 1) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        first = random.randrange(KEPT_PORTS.start, KEPT_PORTS.stop - number)  # noqa: S311  # not a secret
        if all(map(_is_free, range(first, first + number))):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


class Node:
    """One ``ray start --block``, and everything below it."""

    def __init__(self, name: str, options: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        """``folder`` is for its output."""
        self.name = name
        self._log = folder / f"{name}.log"
        ports = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port")
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats",
            f"--node-ip-address={HOST}", f"--object-store-memory={OBJECT_STORE_BYTES}", "--include-log-monitor=false",
            "--min-worker-port=0", "--max-worker-port=0", *(f"{port}={free_port()}" for port in ports), *options,
        ]  # fmt: skip
        with self._log.open("wb") as output:
            # A session of its own: a Ctrl-C ends it by way of this program, and not at the same time.
            self._process = subprocess.Popen(  # noqa: S603  # our own command
                command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has written."""
        return self._log.read_text("utf-8", "replace")

    def is_started(self) -> bool:
        """Wait until Ray says that it runs, or it has ended, or takes too long."""
        deadline = time.monotonic() + START_S
        while not (found := "Ray runtime started" in self.output):
            if self._process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        return found

    def failure(self) -> str:
        """Why it has not started: its output, and the ends of what the cluster's raylets have logged."""
        logs = sorted(self._log.parent.glob("session_2*/logs/raylet*"))
        ends = (f"{one.name}: {one.read_text('utf-8', 'replace')[-REASON_CHARS:]}" for one in logs)
        return "\n".join((self.output, *ends, f"error: the node {self.name!r} has not started"))

    def processes(self) -> set[int]:
        """Ids of all its processes."""
        return set(processes.tree(self._process.pid))

    def kill(self) -> None:
        """Kill all its processes at once, as a power cut does; a second call does nothing."""
        if self._process.poll() is None:
            for process in self.processes():
                send(process, SIGKILL)
            self._process.wait()


class Startable(Protocol):
    """What :func:`started` needs of a node."""

    def is_started(self) -> bool:
        """See :class:`Node`."""
        ...

    def failure(self) -> str:
        """See :class:`Node`."""
        ...

    def kill(self) -> None:
        """See :class:`Node`."""
        ...


NodeT = TypeVar("NodeT", bound=Startable)


def started(make: Callable[[], NodeT]) -> NodeT:
    """A node that runs; one that does not start is made again, as a supervisor would do, with other ports.

    Raises:
        SystemExit: It has not started in STARTS attempts; the message has the output of the last one.
    """
    why = ""
    for _ in range(STARTS):
        node = make()
        try:
            if node.is_started():
                return node
            why = node.failure()
        except BaseException:
            node.kill()
            raise
        node.kill()
    raise SystemExit(why)


class Nodes:
    """A head, on which no replica has a place, and workers."""

    def __init__(self, folder: Path, environment: Mapping[str, str], ports: Sequence[int]) -> None:
        """Start the head.

        Args:
            folder: An empty one with a short path, for Ray's sockets and logs.
            ports: Of the proxies of workers, each of which takes the next.
        """
        self._ports = iter(ports)
        self.address = f"{HOST}:{free_port()}"
        self.folder = folder
        self._environment = environment
        self._started: list[Node] = []
        options = [
            "--head", f"--port={self.address.rpartition(':')[2]}", f"--temp-dir={folder}", "--include-dashboard=false",
            f"--ray-client-server-port={free_port()}", f"--dashboard-port={free_port()}", "--num-cpus=0",
        ]  # fmt: skip
        self.head = self._start("head", options, free_port())
        self.workers: list[Node] = []

    def add_worker(self) -> Node:
        """Start one more."""
        number = sum(one is not self.head for one in self._started) + 1
        node = self._start(f"worker-{number}", [f"--address={self.address}", f"--num-cpus={CPUS}"], next(self._ports))
        self.workers.append(node)
        return node

    def kill(self, node: Node) -> None:
        """Lose a worker."""
        self.workers.remove(node)
        node.kill()

    def node_of(self, process: int) -> Node:
        """The one that a process belongs to."""
        return next(one for one in (self.head, *self.workers) if process in one.processes())

    def log(self, application: str) -> str:
        """What all replicas of an application have logged so far, on all nodes."""
        files = sorted(self.folder.glob(f"session_2*/logs/serve/replica_{application}_*.log"))
        return "".join(one.read_text("utf-8", "replace") for one in files)

    def _start(self, name: str, options: list[str], port: int) -> Node:
        def make() -> Node:
            own = {f"RAY_SERVE_{one}_PORT": str(number) for one, number in zip(PORTS, _ports(port), strict=True)}
            return Node(name, options, self.folder, {**self._environment, **own})

        self._started.append(started(make))
        return self._started[-1]


def _ports(first: int) -> tuple[int, ...]:
    return first, free_port(), free_port()
