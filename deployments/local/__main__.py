"""Starts the whole system on this machine: ``python -m deployments.local --port 8000``.

Leaves no process and no file behind, however it ends. Three processes see to that. The one that was started only passes
signals on. Below it, the guard ends every process below itself and removes their directory when it gets SIGTERM or
when its parent has ended, even if the parent was killed. Below the guard, the third process runs the cluster.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from deployments.local import processes
from deployments.local.loopback import HOST

BAD_INPUT = 2
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


PROGRAM = "python -m deployments.local"


def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Run until interrupted; the exit code is 0 after an interrupt, 1 where the system cannot run, 2 for bad input."""
    from deployments.local import serve_config  # here and below, so that a Ctrl-C while they load ends quietly
    from router.ingress import environment
    from vlm.errors import ConfigError

    options = parser(program).parse_args(argv)
    try:
        config = serve_config.checked(options.config)
        if options.accounts is not None:
            config = _with_accounts(config, options.accounts)
        serve_config.refuse_missing_variables(config)
    except ConfigError as error:
        return _refuse(str(error), BAD_INPUT)
    if _without_token() and (names := serve_config.needing_token(config)):
        return _refuse(
            f"RAY_AUTH_MODE is {os.environ['RAY_AUTH_MODE']!r}, so every user of this machine could run code as you "
            "through Ray's ports. Unset it, or set allow_unauthenticated_cluster: true in the args of: "
            f"{', '.join(names)}."
        )
    if not _is_free(options.port):
        return _refuse(f"port {options.port} on {HOST} is in use; take another one.")
    _set_environment()
    for name, value in environment(config).items():  # the router's limits, for Serve's proxy
        os.environ.setdefault(name, value)
    guard = _fork(lambda: _guard(config, options))
    _on_interrupt(lambda _number, _frame: processes.send(guard, signal.SIGTERM))
    return processes.wait_for(guard)


def _refuse(message: str, code: int = 1) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _with_accounts(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    from deployments.local import account_folder, serve_config

    serve_config.refuse_own_database(config)
    url, secret = account_folder.prepared(folder)
    print(account_folder.told(url, secret), flush=True)
    return serve_config.with_database(config, url)


def _fork(life: Callable[[], int]) -> int:
    """Start a process that returns from ``life`` with its exit code; forked before any thread is started.

    Interrupts wait, in both processes, until each of them has called :func:`_on_interrupt`: neither may get one while
    it still has the handlers of the other.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    child = os.fork()
    if child != 0:
        return child
    code = 1
    try:
        code = life()
    finally:  # the rest of the program is for the parent alone
        if (error := sys.exc_info()[1]) is not None:
            traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(code)


def _guard(config: dict[str, Any], options: argparse.Namespace) -> int:
    """Wait for the end of the cluster, or end it on an interrupt."""
    interrupted = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:  # a second Ctrl-C changes nothing
            interrupted = True
            processes.send(cluster, signal.SIGKILL)  # it needs no clean-up of its own

    processes.on_end_of_parent(signal.SIGTERM)
    processes.adopt_orphans()
    with _temporary_directory() as directory:
        cluster = _fork(lambda: _run(config, options, directory))
        _on_interrupt(stop)
        code = processes.wait_for(cluster)
        stopped = interrupted
        interrupted = True  # from here on there is no cluster to send a signal to
        processes.end_descendants()
    if stopped:
        print("gigarouter: stopped", file=sys.stderr, flush=True)
    return 0 if stopped else code


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """What reads the arguments of a program of this name."""
    from deployments.config import BUNDLE

    parser = argparse.ArgumentParser(prog=program, description="Run the system on this machine.")
    parser.add_argument("--port", type=_port, default=8000)
    parser.add_argument("--config", type=Path, default=BUNDLE / "serve_config.local.yaml", help="a Serve config")
    parser.add_argument(
        "--accounts",
        type=Path,
        nargs="?",
        const=default_folder(),
        metavar="FOLDER",
        help=f"ask every request for a key, and keep accounts in FOLDER ({default_folder()})",
    )
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="maximum wait for the models")
    return parser


def default_folder() -> Path:
    """Where data of programs of this user belong, by the XDG base directory specification."""
    home = Path.home() / ".local" / "share"
    stated = Path(os.environ.get("XDG_DATA_HOME") or home)
    return (stated if stated.is_absolute() else home) / "gigarouter"


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError("must be a number from 1 to 65535")
    return int(text)


def _is_free(port: int) -> bool:
    """Checked first: it would fail much later, and Serve's proxy would even share the port with another program."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _without_token() -> bool:
    """Whether the user has switched off what :func:`_set_environment` sets."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower() != "token"


def _set_environment() -> None:
    """Must come before the import of Ray. What the user has set stays, except for where Ray listens."""
    from serve_args.cluster_environment import ONE_LOOP

    # Ray's processes run whatever reaches their ports, and other users of this machine can reach them, so a token is
    # needed. Without one of the user's own, each start makes a new one, which never leaves this process tree.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ.keys().isdisjoint(("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Without "clusters", which is Ray's default on Windows and macOS alone, the node's own address is the loopback. All
    # ports then listen there and nowhere else (the exception is in deployments.local.loopback).
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # HAProxy would listen on every interface. It is among the variables of a cluster, which may be in this environment.
    os.environ.pop("RAY_SERVE_ENABLE_HA_PROXY", None)
    for name, value in ONE_LOOP.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # Ray would hold similar lines back and print them a minute later
    os.environ.pop("RAY_ADDRESS", None)  # never join a cluster that happens to run


def _on_interrupt(action: Callable[[int, FrameType | None], None]) -> None:
    """Set what SIGINT and SIGTERM do, and let those through that have waited since :func:`_fork`.

    A handler stays to the end and only sends signals on. One that raises, or that is replaced by SIG_IGN while another
    signal is pending, makes Python print an error of its own ("ignored due to race condition").
    """
    for number in INTERRUPTS:
        signal.signal(number, action)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)


@contextmanager
def _temporary_directory() -> Iterator[Path]:
    """For sockets, logs and uploaded files.

    Paths of sockets are limited to about 100 bytes, of which Ray takes 80: so under /tmp.

    Ray opens what it is given to everybody (mode 0777), so it gets a folder within one that only this user can enter.
    """
    private = Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp"))  # mode 0700
    try:
        directory = private / "r"
        directory.mkdir()
        yield directory
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _run(config: dict[str, Any], options: argparse.Namespace, directory: Path) -> int:
    """Run the cluster. A Ctrl-C reaches every process of the terminal; the guard alone acts on it."""
    processes.on_end_of_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    from deployments.local.cluster import run
    from deployments.local.serve_config import with_folder

    run(with_folder(config, directory.parent / "files"), HOST, options.port, directory, options.timeout)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing runs yet that has to be ended, so no KeyboardInterrupt
    sys.exit(main())
