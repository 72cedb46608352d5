"""A server of one's own: started on a free port, waited for, held still while others are measured, and ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from deployments.local.cluster import answers

ROOT = Path(__file__).resolve().parents[2]
READY_S = 600.0
"""The longest wait for a server. Three at once take 10 to 40 s on two cores, and real weights take longer."""
END_S = 30.0
"""From an interrupt until what is left of a server is killed."""
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Start:
    """How a server is started.

    Attributes:
        name: What tables call it.
        command: The program and its options.
        port: Where it will listen.
        ready: A path that it answers with 200 as soon as it is ready.
        environment: Variables beside those of this process.
    """

    name: str
    command: Sequence[str]
    port: int
    ready: str
    environment: Mapping[str, str]


class Server:
    """One that was started. ``process`` is the root of its processes."""

    def __init__(self, start: Start, log: Path) -> None:
        self.name, self.port = start.name, start.port
        self._start = start
        self._log = log
        with log.open("wb") as output:
            # A session of its own: a Ctrl-C ends it by way of this program, and not at the same time.
            self._popen = subprocess.Popen(  # noqa: S603  # our own command
                start.command, cwd=ROOT, env={**os.environ, **start.environment}, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self.process = self._popen.pid

    def wait_until_ready(self) -> None:
        """Return when it answers.

        Raises:
            SystemExit: It has ended, or does not answer in time; the message has its output.
        """
        deadline = time.monotonic() + READY_S
        while not answers(f"http://127.0.0.1:{self.port}{self._start.ready}"):
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.output}\nerror: {self.name} is not ready")
            time.sleep(POLL_S)

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text("utf-8", "replace")

    def hold(self) -> None:
        """Stop all its processes where they are."""
        _send(processes.tree(self.process), signal.SIGSTOP)

    def let_go(self) -> None:
        """Let them go on."""
        _send(processes.tree(self.process), signal.SIGCONT)

    def end(self) -> None:
        """Interrupt it and wait; then kill what is left of its processes."""
        self.let_go()
        started = processes.tree(self.process)
        self._popen.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(END_S)
        self._popen.kill()
        self._popen.wait()
        left = [one for one in started if one != self.process]
        _send(left, signal.SIGKILL)
        while any(map(processes.is_alive, left)):
            time.sleep(POLL_S)


def _send(to: Sequence[int], number: signal.Signals) -> None:
    for process in to:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(starts: Sequence[Start], folder: Path) -> Iterator[list[Server]]:
    """Start servers, all at once, and wait until every one is ready; end them when the block ends, however it does."""
    with ExitStack() as ending:
        servers = []
        for start in starts:
            servers.append(Server(start, folder / f"{start.name}.log"))
            ending.callback(servers[-1].end)
        for server in servers:
            server.wait_until_ready()
        yield servers


@contextmanager
def alone(server: Server | None, others: Sequence[Server]) -> Iterator[None]:
    """Hold all other servers still until the end of the block."""
    held = [one for one in others if one is not server]
    try:
        for one in held:
            one.hold()
        yield
    finally:
        for one in held:
            one.let_go()


def end_on_signals() -> None:
    """Have SIGTERM end this program as an exception does, so that the servers are ended, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
