"""The variables that decide how a request crosses a Ray cluster, which every process of it must see with equal values.

Ray Serve reads them when a process starts, and never compares them: a node that has others opens no port where HAProxy
looks for one, or lets requests in that the front has not seen. So an application is given the values that it was built
with (:func:`own`), and refuses to start where there are others (:func:`require_same`). ``deployments.environment``
prints them for every node. Imports Ray only where a cluster is asked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from vlm.errors import ConfigError

logger = logging.getLogger(__name__)

Values = Mapping[str, str | None]
"""The value of each of :data:`NAMES`; None where it is not set."""

ONE_LOOP: Mapping[str, str] = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
"""A request stays in one event loop of each process that it passes, instead of two or three."""

LOGGED_AT_ONCE: Mapping[str, str] = {
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    "RAY_SERVE_LOG_TO_STDERR": "1",
}
"""Serve's defaults, which ``RAY_SERVE_THROUGHPUT_OPTIMIZED=1`` would turn into a thousand lines and no output: the last
lines before a crash would be missing, and `kubectl logs` would show none."""

HAPROXY: Mapping[str, str] = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # Seconds of silence of a client before its connection ends: above the router's request_timeout_s (120) and the 10 s
    # for which it goes on writing. Serve's hour would let idle connections take all places.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "150",
    # Seconds for which a HAProxy whose configuration has been replaced goes on with its requests: likewise. After
    # Serve's 120 it would cut the longest.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "150",
    "RAY_SERVE_HAPROXY_MAXCONN": "4096",
    # A request goes to another replica of the router also where the first one ended without a byte of an answer: to
    # answer twice does no harm. It must have come whole before it was passed on, and fit in a buffer. Bytes of one:
    # what HAProxy reads at a time at most, where 4096 connections would take 512 MiB for both directions.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
    # Ports of the router's replicas, to which the HAProxy of any node connects; Serve opens one for each replica of a
    # model, too. Ray's workers take 10002 to 19999.
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": "30000",
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": "31000",
}
"""Serve's proxy on a cluster."""

FRONT: tuple[str, ...] = ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "GIGAROUTER_FRONT")
"""Set from the router's settings (:func:`router.ingress.environment`)."""

CLUSTER: Mapping[str, str] = {**HAPROXY, **ONE_LOOP, **LOGGED_AT_ONCE}
"""What a cluster is to be started with, beside :data:`FRONT`."""

NAMES: tuple[str, ...] = (
    *CLUSTER,
    *FRONT,
    "RAY_SERVE_THROUGHPUT_OPTIMIZED",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT",
    "RAY_SERVE_PROXY_USE_GRPC",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH",
    "RAY_SERVE_SESSION_ID_HEADER_KEY",
)

NODE_PATIENCE_S = 20.0
"""How long the nodes of a cluster may take to say which values they have; one that does not, or cannot because it has
ended or lacks this package, is passed over, since whatever starts there compares for itself."""


def own() -> dict[str, str | None]:
    """The values of this process."""
    return {name: os.environ.get(name) for name in NAMES}


def require_same(built_with: Values, found: Values | None = None, node: str | None = None) -> None:
    """Refuse to go on where the way of a request would be another than the application was built for.

    Args:
        built_with: The values of the process that built the application.
        found: Those to compare; this process's own if None.
        node: Whose values they are, for the message; this process's node if None.

    Raises:
        ConfigError: There are differences; the message names the node, each variable and both values.
    """
    found = own() if found is None else found
    differing = [name for name in NAMES if found.get(name) != built_with.get(name)]
    if differing:
        raise ConfigError(_refusal(differing, built_with, found, node or _this_node()), differing[0])


def require_same_on_every_node() -> None:
    """The same for every node of the cluster that this process belongs to, where it belongs to one.

    Raises:
        ConfigError: As for :func:`require_same`.
    """
    for node, found in _of_every_node():
        require_same(own(), found, node)


def _refusal(names: list[str], built_with: Values, found: Values, node: str) -> str:
    values = "; ".join(
        f"{name} is {_shown(found.get(name))} instead of {_shown(built_with.get(name))}" for name in names
    )
    return (
        f"On the node {node}, {values}: the process that built this application has the others. Requests would take "
        "another way there than everywhere else. Give every node the same variables before Ray starts on it, and "
        "`serve run` or `serve deploy` too: `python -m deployments.environment serve_config.yaml` prints them, and "
        "docs/security.md says where they go."
    )


def _shown(value: str | None) -> str:
    return "not set" if value is None else repr(value)


def _this_node() -> str:
    import ray

    return str(ray.util.get_node_ip_address()) if ray.is_initialized() else "of this process"


def _of_every_node() -> Iterator[tuple[str, Values]]:
    """(address, the values that its processes start with) of each node; none where there is no cluster."""
    import ray

    if not ray.is_initialized():
        return
    asked = {_ask(one["NodeID"]): one["NodeManagerAddress"] for one in ray.nodes() if one["Alive"]}
    ray.wait(list(asked), num_returns=len(asked), timeout=NODE_PATIENCE_S)
    for reference, address in asked.items():
        try:
            yield address, ray.get(reference, timeout=0)
        except ray.exceptions.RayError as error:  # also where there is no answer yet
            logger.warning("the variables of the node %s are not compared: %s", address, type(error).__name__)
            ray.cancel(reference, force=True)


def _ask(node_id: str) -> Any:
    """The reference of what :func:`own` returns in a process of that node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=there)(own).remote()
