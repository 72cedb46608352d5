"""Keeps Ray's ports on this machine's loopback address.

Ray listens on every interface unless the node's own address is the loopback; the starter sees to that. What is left
is a port of Ray Serve's, which each replica opens on every interface whatever the node's address is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

HOST = "127.0.0.1"
EVERY_INTERFACE = "[::]"

SYSTEM_CONFIG: Mapping[str, object] = {"prestart_worker_first_driver": False}
"""Settings of Ray: processes that it starts before they are needed lack the hook, and so are never used."""


def hook() -> Callable[[], None]:
    """What every process of Ray calls before it does anything else (``worker_process_setup_hook``).

    Returns a function within a function because Ray sends that by value: this module need not be installed where the
    processes look for modules. Serve has no setting for the address, so the function that opens the port is replaced
    before Serve imports it.
    """
    host, every_interface = HOST, EVERY_INTERFACE

    def bind_to_loopback() -> None:
        from ray._common import tls_utils

        bind = tls_utils.add_port_to_grpc_server

        def add_port_to_grpc_server(server: Any, address: str) -> Any:
            interface, _, port = address.rpartition(":")
            return bind(server, f"{host}:{port}" if interface == every_interface else address)

        tls_utils.add_port_to_grpc_server = add_port_to_grpc_server

    return bind_to_loopback
