"""The whole local system as users start it, in a process of its own: the tests themselves do not import Ray."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import yaml

from deployments.local.processes import descendants
from tests.listening import kept_port

ROOT = Path(__file__).parents[2]
VARIABLE = "GIGAROUTER_TEST"
NARROW = "narrow"  # a model that runs one request at a time, with a short queue
WAITING = 30


def with_narrow_model(folder: Path) -> Path:
    """The local config and one more model: a copy of an entry with other settings."""
    config = yaml.safe_load((ROOT / "serve_config.local.yaml").read_text(encoding="utf-8"))
    florence = next(one for one in config["applications"] if one["name"] == "florence-2-base")
    args = {**florence["args"], "engine": {**florence["args"]["engine"], "max_batch": 1, "max_waiting": WAITING}}
    replica = {**florence["deployments"][0], "ray_actor_options": {"num_cpus": 0}}
    config["applications"].append({**florence, "name": NARROW, "args": args, "deployments": [replica]})
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "config.yaml"


def free_port() -> int:
    return kept_port()


def wait_until(holds: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_s} s"
        time.sleep(0.1)


class System:
    """One run of ``python -m deployments.local``. Its processes are found by a variable in their environment."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._id = uuid.uuid4().hex
        self._log = folder / f"system-{self._id}.log"
        with self._log.open("w") as log:
            self._process = self._start(log, *options)

    def _start(self, log: IO[str], *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "deployments.local", "--port", str(self.port), *options],
            cwd=ROOT,
            env={**os.environ, "RAY_AUTH_MODE": "token", VARIABLE: self._id},
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C is sent to a whole group of processes, which must not include the tests
        )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, line: str, timeout_s: float) -> None:
        """Wait until the program has printed ``line``."""

        def is_printed() -> bool:
            assert line in self.log or self._process.poll() is None, f"it has ended:\n{self.log}"
            return line in self.log

        wait_until(is_printed, timeout_s, f"{line!r} in the log")

    def processes(self, title: str = "") -> set[int]:
        """Ids of its processes whose command line holds ``title``."""
        return {one for one in _all_processes() if self._is_ours(one) and title.encode() in _read(one, "cmdline")}

    def tree(self) -> set[int]:
        """Ids of all processes below the program: some of Ray's overwrite their environment."""
        return descendants(self._process.pid)

    def environment(self, name: str) -> set[str]:
        """The values that a variable has in the environments of its processes."""
        pairs = (pair for one in self.processes() for pair in _read(one, "environ").decode().split("\0"))
        return {pair.partition("=")[2] for pair in pairs if pair.partition("=")[0] == name}

    def listening(self) -> set[tuple[str, str]]:
        """(address, command line) of each of its processes' open TCP and UDP ports, as ``127.0.0.1``."""
        owners = {
            inode: _read(process, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
            for process in self.tree()
            for inode in sockets_of(process)
        }
        return {(address, owners[inode]) for address, inode in open_ports() if inode in owners}

    @property
    def folder(self) -> Path:
        """The one that only this user can enter, with Ray's sockets and logs; from a command line of Ray."""
        (gcs,) = self.processes("gcs_server")
        found = re.search(rb"--log_dir=(/tmp/gr-[^/]+)/", _read(gcs, "cmdline"))
        assert found is not None
        return Path(found[1].decode())

    def _is_ours(self, process: int) -> bool:
        return f"{VARIABLE}={self._id}".encode() in _read(process, "environ").split(b"\0")

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self.wait(30)

    def wait(self, timeout_s: float) -> int:
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """Kill the program itself, so that it cannot clean up."""
        self._process.kill()
        self._process.wait(10)

    def end(self) -> None:
        """End whatever is left of it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
        for process in self.processes():
            os.kill(process, signal.SIGKILL)


def sockets_of(process: int) -> set[str]:
    """Inodes of the process's sockets."""
    found = set()
    for descriptor in Path(f"/proc/{process}/fd").glob("*"):
        try:
            found.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
        except OSError:  # it has been closed
            continue
    return found


def open_ports() -> Iterator[tuple[str, str]]:
    """(address, inode) of every TCP socket that listens, and every UDP socket that anybody can send to."""
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{protocol}").read_text("ascii").splitlines()[1:]:
            local, state, inode = (line.split()[column] for column in (1, 3, 9))
            if state in {"0A", "07"}:  # TCP_LISTEN, and TCP_CLOSE, which is what an unconnected UDP socket is in
                yield _address(local.partition(":")[0]), inode


def _address(words: str) -> str:
    """An address of /proc/net, which has 32-bit words in the machine's byte order; IPv4 within IPv6 as IPv4."""
    data = b"".join(bytes.fromhex(words[index : index + 8])[::-1] for index in range(0, len(words), 8))
    return str(ipaddress.ip_address(data[12:] if data.startswith(bytes(10) + b"\xff\xff") else data))


def _all_processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""
