"""What an attack does to others: good requests meanwhile, and the memory of the processes.

It runs in a process of its own, so that the threads of the attack do not delay what is measured.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.processes import Memory, all_processes, children_of, memory, parent, title
from tests.hostile_clients import CHAT
from tests.images import data_url
from vlm.image.sample import sample_image

PATIENCE_S = 150.0
"""Longer than the deadline of a request."""
PAUSE_S = 0.2
"""Between an answer and the next good request."""
CALM_S = 5.0
"""From the end of an attack until the memory that is left is read."""

SAME, OTHER, HEALTH = "same model", "other model", "/healthz"
PROXY, ROUTER, REPLICA, DECODING = "proxy", "router", "replica", "decoding"
TITLES = {PROXY: "ray::ProxyActor", ROUTER: "ray::ServeReplica:router"}


@dataclass(slots=True)
class Seen:
    """What was seen during an attack.

    Attributes:
        seconds: Time that each good request took, by what it asked for.
        failed: Statuses of those that were not answered with 200.
        peak: The largest memory of each process; the decoding processes of the model count as one.
        after: The memory some seconds after the attack.
        largest_decoding: The largest memory of one decoding process, in MiB.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    peak: dict[str, Memory] = field(default_factory=dict)
    after: dict[str, Memory] = field(default_factory=dict)
    largest_decoding: int = 0


@contextmanager
def watching(port: int, model: str, other: str) -> Iterator[Callable[[], Seen]]:
    """Watch in another process. What it yields ends that, once the attack is over, and returns what was seen."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    watcher = context.Process(target=_watch, args=(there, port, model, other), daemon=True)
    watcher.start()

    def end() -> Seen:
        here.send(None)
        seen: Seen = here.recv()
        return seen

    try:
        here.recv()  # it has begun
        yield end
    finally:
        watcher.kill()
        watcher.join()


def _watch(control: Connection, port: int, model: str, other: str) -> None:
    seen, ends = Seen(), threading.Event()
    processes = processes_of(port, model)
    asks = {
        SAME: lambda: _ask(port, model),
        OTHER: lambda: _ask(port, other),
        HEALTH: lambda: _status(port, "GET", "/healthz", None),
    }
    threads = [threading.Thread(target=_probe, args=(seen, ends, name, ask)) for name, ask in asks.items()]
    threads.append(threading.Thread(target=_sample, args=(seen, ends, processes)))
    for thread in threads:
        thread.start()
    control.send(None)
    control.recv()
    ends.set()
    for thread in threads:
        thread.join()
    time.sleep(CALM_S)
    seen.after = memory_of(processes)[0]
    control.send(seen)


# Good requests


def _probe(seen: Seen, ends: threading.Event, name: str, ask: Callable[[], str]) -> None:
    times = seen.seconds.setdefault(name, [])
    while not ends.wait(PAUSE_S):
        began = time.perf_counter()
        try:
            status = ask()
        except OSError as error:
            status = type(error).__name__
        times.append(time.perf_counter() - began)
        if status != "200":
            seen.failed.append(f"{name}: {status}")


def _ask(port: int, model: str) -> str:
    """A small question about a new image."""
    image = {"type": "image_url", "image_url": {"url": data_url(sample_image(secrets.randbits(32)), "image/jpeg")}}
    body = {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": [image]}]}
    return _status(port, "POST", CHAT, json.dumps(body).encode())


def _status(port: int, method: str, path: str, body: bytes | None) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    finally:
        connection.close()


# Memory


def processes_of(port: int, model: str) -> Mapping[str, int]:
    """Ids of the router, of the model's replica, and of the proxy if there is one. One of them listens on the port."""
    listening = next(
        one for one in all_processes() if title(one).startswith(tuple(TITLES.values())) and _listens(one, port)
    )
    siblings = [(one, title(one)) for one in children_of(parent(listening))]
    titles = TITLES | {REPLICA: f"ray::ServeReplica:{model}:"}
    found = {name: next((one for one, own in siblings if own.startswith(start)), 0) for name, start in titles.items()}
    return {name: one for name, one in found.items() if one}


def _sample(seen: Seen, ends: threading.Event, processes: Mapping[str, int]) -> None:
    while not ends.wait(0.1):
        now, largest = memory_of(processes)
        seen.largest_decoding = max(seen.largest_decoding, largest)
        for name, one in now.items():
            most = seen.peak.get(name, one)
            seen.peak[name] = Memory(max(most.resident, one.resident), max(most.own, one.own))


def memory_of(processes: Mapping[str, int]) -> tuple[dict[str, Memory], int]:
    """The memory of each process, and the MiB of the largest decoding process."""
    decoding = [memory(one) for one in children_of(processes[REPLICA]) if "vlm.decoding.child" in title(one)]
    together = Memory(sum(one.resident for one in decoding), sum(one.own for one in decoding))
    found = {name: memory(one) for name, one in processes.items()} | {DECODING: together}
    return found, max((one.resident for one in decoding), default=0)


def _listens(process: int, port: int) -> bool:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    wanted = {f"socket:[{line[9]}]" for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}
    return any(_target(descriptor) in wanted for descriptor in Path(f"/proc/{process}/fd").glob("*"))


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # it has been closed
        return ""
