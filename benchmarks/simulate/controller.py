"""python -m benchmarks.simulate.controller: what Serve's controller takes, by the number of replicas of an empty model.

    python -m benchmarks.simulate.controller --replicas 4,16,40

It starts a Ray of its own, without dashboard and proxy, and ends it. Per number of replicas it prints a JSON line: the
share of a core that the controller takes while nothing happens, with health checks as in ``serve_config.yaml``; the CPU
seconds of the report for which each router asks once a second, in the controller and in the router; and the size and
time of the list of replicas that it sends to each router when one of them changes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks import processes
from router.backends.applications import controller_report

HEALTH_CHECK_S = 2.0
"""As in serve_config.yaml."""
IDLE_S = 15.0
SETTLED_S = 5.0
CALLS = 40
"""Reports and lists of which the mean is taken."""
SHARE = 0.001
"""Of a core, as Ray counts it: an empty replica needs none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate.controller")
    parser.add_argument("--replicas", type=replicas_of, default=(4, 16, 40), help="by comma (4,16,40)")
    options = parser.parse_args(arguments)
    with _serve() as controller:
        for replicas in options.replicas:
            print(json.dumps(_measured(controller, replicas)), flush=True)
    return 0


@contextmanager
def _serve() -> Iterator[Any]:
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}  # loopback, and gone in minutes
    os.environ.pop("RAY_ADDRESS", None)
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client

    with tempfile.TemporaryDirectory(prefix="gr-", dir="/tmp") as folder:  # Ray's sockets need short names
        ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        try:
            serve.start(proxy_location="Disabled")
            yield _get_global_client()._controller
        finally:
            serve.shutdown()
            ray.shutdown()


def _measured(controller: Any, replicas: int) -> dict[str, float]:
    import ray
    from ray import cloudpickle

    _run(replicas)
    process = next(one for one in processes.all_processes() if _is_controller(one))
    time.sleep(SETTLED_S)
    idle = _share(process, lambda: time.sleep(IDLE_S))
    began, at, own = processes.cpu_seconds(process), time.monotonic(), time.process_time()
    for _ in range(CALLS):
        controller_report()
    took, own = processes.cpu_seconds(process) - began, time.process_time() - own
    lists = ray.get(controller._all_running_replicas.remote())
    packed, content = time.process_time(), b""
    for _ in range(CALLS):
        content = cloudpickle.dumps(lists)
    packed = time.process_time() - packed
    return {
        "replicas": replicas,
        "idle_cores": round(idle, 4),
        "report_s": round((took - idle * (time.monotonic() - at)) / CALLS, 5),
        "report_router_s": round(own / CALLS, 5),
        "list_bytes": len(content),
        "list_s": round(packed / CALLS, 6),
    }


def _run(replicas: int) -> None:
    from ray import serve

    class Empty:
        async def __call__(self) -> None:
            """Nothing is asked."""

    deployed = serve.deployment(
        num_replicas=replicas, health_check_period_s=HEALTH_CHECK_S, ray_actor_options={"num_cpus": SHARE}
    )
    serve.run(deployed(Empty).bind(), name="empty", route_prefix=None)


def replicas_of(text: str) -> tuple[int, ...]:
    """Numbers by comma."""
    return tuple(int(one) for one in text.split(","))


def _is_controller(process: int) -> bool:
    return "ray::ServeController" in processes.title(process) and os.getpid() == _above(process)


def _above(process: int) -> int:
    """Who started the cluster of a worker: the parent of its raylet."""
    return processes.parent(processes.parent(process))


def _share(process: int, wait: Any) -> float:
    began, at = processes.cpu_seconds(process), time.monotonic()
    wait()
    return (processes.cpu_seconds(process) - began) / (time.monotonic() - at)


if __name__ == "__main__":
    sys.exit(main())
