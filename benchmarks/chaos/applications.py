"""The applications of the cluster: deployed as ``serve deploy`` does, and looked at as ``serve status`` does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.chaos.nodes import HOST
from benchmarks.chaos.plan import Config

PATIENCE_S = 300.0
"""For what takes seconds on an idle machine."""
POLL_S = 0.2


class Waited(Exception):
    """Something did not come about in time."""


class Applications:
    """Those of one cluster, by way of its head."""

    def __init__(self, address: str, port: int, config: Config) -> None:
        """Connect to the cluster, and have Serve listen at ``port``. Blocks."""
        import ray
        from ray import serve
        from ray.serve.context import _get_global_client

        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        http = {**config["http_options"], "host": HOST, "port": port}
        serve.start(proxy_location=config["proxy_location"], http_options=http, logging_config=config["logging_config"])
        self._client = _get_global_client()

    def close(self) -> None:
        """Leave the cluster, which must still be there: Ray waits a minute for one that is not."""
        import ray

        ray.shutdown()

    async def deploy(self, config: Config) -> None:
        """Make it what runs; returns before it does."""
        from ray.serve.schema import ServeDeploySchema

        named = {key: value for key, value in config.items() if key in ("applications", "logging_config")}
        await asyncio.to_thread(self._client.deploy_apps, ServeDeploySchema.model_validate(named))

    async def status(self, name: str) -> str:
        """Serve's word for the application; "GONE" without it."""
        reported = await self._reported()
        return _text(reported[name]["status"]) if name in reported else "GONE"

    async def message(self, name: str) -> str:
        """What Serve says of it."""
        reported = await self._reported()
        return str(reported[name].get("message") or "") if name in reported else ""

    async def replicas(self, name: str) -> dict[int, str]:
        """The process and the node of each of its replicas that run."""
        reported = await self._reported()
        deployments = reported[name]["deployments"].values() if name in reported else ()
        found = [one for deployment in deployments for one in deployment["replicas"]]
        return {one["pid"]: one["node_id"] for one in found if _text(one["state"]) == "RUNNING"}

    async def until_status(self, name: str, status: str) -> None:
        """Wait until Serve says so."""
        await _until(lambda found: found == status, lambda: self.status(name), f"{name!r} to be {status}")

    async def until_replaced(self, name: str, lost: set[int], count: int) -> None:
        """Wait until so many replicas run, and the application with them, none of them in one of these processes."""

        def holds(found: tuple[str, dict[int, str]]) -> bool:
            status, replicas = found
            return status == "RUNNING" and len(replicas) == count and not lost & replicas.keys()

        async def look() -> tuple[str, dict[int, str]]:
            return await self.status(name), await self.replicas(name)

        await _until(holds, look, f"{count} replicas of {name!r}")

    async def _reported(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = (await asyncio.to_thread(self._client.get_serve_details))["applications"]
        return found


async def _until(holds: Callable[[Any], bool], look: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds(found := await look()):
        if time.monotonic() > deadline:
            raise Waited(f"waited {PATIENCE_S:.0f} s for {what}; there is {found!r}")
        await asyncio.sleep(POLL_S)


def _text(state: object) -> str:
    return str(getattr(state, "value", state))
