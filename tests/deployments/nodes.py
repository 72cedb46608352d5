"""Ray nodes of a test on this machine, each of which can be killed at once, as a machine that loses its power."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from signal import SIGKILL

from deployments.local.processes import descendants, send
from tests.deployments.system import ROOT, free_port

HOST = "127.0.0.1"
START_S = 180.0
STORE_BYTES = 100 * 1024**2


class Node:
    """One ``ray start --block``, and everything below it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *options: str) -> None:
        """``folder`` is for its output."""
        ports = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port")
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats",
            f"--node-ip-address={HOST}", f"--object-store-memory={STORE_BYTES}", "--include-log-monitor=false",
            "--min-worker-port=0", "--max-worker-port=0", *(f"{port}={free_port()}" for port in ports), *options,
        ]  # fmt: skip
        self._log = folder / f"node-{free_port()}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def is_started(self) -> bool:
        """Wait until Ray says that it runs, or the process has ended."""
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in self.log and self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        return "Ray runtime started" in self.log

    def kill(self) -> None:
        """Kill all its processes at once; a second call does nothing."""
        if self._process.poll() is None:
            for process in {self._process.pid, *descendants(self._process.pid)}:
                send(process, SIGKILL)
            self._process.wait(30)
