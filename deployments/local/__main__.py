"""Starts the whole system on this machine: ``python -m deployments.local --port 8000``.

Owns what is left behind, which is nothing. Three processes see to it: the one that was started only passes signals on;
the guard below it ends every process below itself and removes their folder when it is told to stop or its parent has
ended, be it killed; and the one below that runs the cluster. Knows nothing of Ray but its environment variables.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from deployments.config import REPOSITORY
from deployments.local import processes

HOST = "127.0.0.1"


def main(argv: list[str] | None = None) -> int:
    """Run until interrupted; the exit code is 0 after an interrupt and 1 where the system cannot run."""
    options = _options(argv)
    if not _is_free(options.port):
        print(f"error: port {options.port} on {HOST} is in use; take another one.", file=sys.stderr)
        return 1
    _set_environment()
    guard = _fork(lambda: _guard(options))
    _on_interrupt(lambda _number, _frame: processes.send(guard, signal.SIGTERM))
    return processes.wait_for(guard)


def _fork(life: Callable[[], int]) -> int:
    """Start a process that returns from ``life`` with its exit code; forked before any thread is started."""
    child = os.fork()
    if child != 0:
        return child
    code = 1
    try:
        code = life()
    finally:  # not a step further: the rest of the program is the parent's
        if (error := sys.exc_info()[1]) is not None:
            traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(code)


def _guard(options: argparse.Namespace) -> int:
    try:
        _on_interrupt(_interrupt_once)
        processes.on_end_of_parent(signal.SIGTERM)
        processes.adopt_orphans()
        with _temporary_folder() as folder, _cluster(options, folder) as cluster:
            return processes.wait_for(cluster)
    except KeyboardInterrupt:
        print("gigarouter: stopped", file=sys.stderr, flush=True)
        return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployments.local", description="Run the system on this machine.")
    parser.add_argument("--port", type=_port, default=8000)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "serve_config.local.yaml", help="a Serve config")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="longest wait for the models")
    return parser.parse_args(argv)


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError("must be a number from 1 to 65535")
    return int(text)


def _is_free(port: int) -> bool:
    """Asked first: Ray's proxy would share the port with whoever listens there, and get some of its requests."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _set_environment() -> None:
    """Before Ray is imported. What the user has set stays."""
    # Only our own port is on the loopback. Ray's listen on every interface and run what they are sent, so a token is
    # needed; without one of the user's own it is drawn anew for each start and kept in this process tree alone.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ.keys().isdisjoint(("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.pop("RAY_ADDRESS", None)  # never join a cluster that happens to run


def _on_interrupt(action: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, action)


def _interrupt_once(_number: int, _frame: FrameType | None) -> NoReturn:
    _on_interrupt(signal.SIG_IGN)  # an impatient second Ctrl-C must not leave half of it running
    raise KeyboardInterrupt


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """For sockets and logs. The paths of sockets hold about 100 bytes, and Ray adds 80: so not under a long TMPDIR."""
    folder = Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _cluster(options: argparse.Namespace, folder: Path) -> Iterator[int]:
    """The process that runs the cluster; no process below this one is left afterwards."""
    cluster = _fork(lambda: _run(options, folder))
    try:
        yield cluster
    finally:
        _on_interrupt(signal.SIG_IGN)
        processes.send(cluster, signal.SIGKILL)  # it has nothing to put in order
        processes.end_descendants()


def _run(options: argparse.Namespace, folder: Path) -> int:
    """Run the cluster; what a Ctrl-C means, which reaches every process of the terminal, is the guard's to say."""
    processes.on_end_of_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from deployments.local.cluster import run

    run(options.config, HOST, options.port, folder, options.timeout)
    return 1


if __name__ == "__main__":
    sys.exit(main())
