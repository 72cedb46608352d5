"""Serve's controller, and what is asked of it: a report of the applications as plain values.

``ray.serve.status`` makes objects of the same report and pickles a class of each deployment for that: 25 ms of CPU time
for five applications, where the plain values take half a millisecond. The router asks once a
second while something changes, and less often where nothing does (:mod:`router.backends.snapshot`).

While Serve builds a new version of an application, and after that has failed, its report lists no deployments, although
the replicas of the last version run and answer. :class:`Controller` asks for those by themselves. Serve has no public
call for either, so another release of Ray may break the second, which must not take the first with it.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from router.backends.applications import EARLIER, Reported, is_bare

logger = logging.getLogger(__name__)

ANSWER_S = 10.0
"""How long the controller may take for an answer. It needs milliseconds; one that is lost with its node would be waited
for until it is back, by a thread that could not ask again."""

Deployments = Mapping[str, Reported]


class Controller:
    """Asks Serve's controller. Only one thread may ask at a time."""

    def __init__(self) -> None:
        self._listed: dict[str, Deployments] = {}
        self._told = False

    def report(self) -> Mapping[str, Reported]:
        """Every application by its name. Blocks.

        Raises:
            ray.exceptions.RayError: The controller does not answer.
        """
        from ray.serve.context import _get_global_client

        client = _get_global_client(raise_if_no_controller_running=False)
        if client is None:
            return {}
        report = _answer(client._controller.get_serve_instance_details.remote())["applications"]
        bare = {name for name, reported in report.items() if is_bare(reported)}
        earlier = self._earlier(client._controller, bare) if bare else {}
        self._listed = {name: earlier.get(name, reported["deployments"]) for name, reported in report.items()}
        kept = {name: {**report[name], "deployments": earlier[name], EARLIER: True} for name in earlier}
        return {**report, **kept}

    def _earlier(self, controller: Any, names: set[str]) -> Mapping[str, Deployments]:
        """The deployments that Serve keeps of the last version of these applications; those of the last report if it
        does not say."""
        ray_error = importlib.import_module("ray.exceptions").RayError
        try:
            found = _kept(controller, names)
        except (ray_error, ImportError, AttributeError, TypeError, ValueError) as error:
            if not self._told:
                logger.warning("the replicas of earlier versions cannot be counted: %s", type(error).__name__)
            self._told = True
            return {name: self._listed[name] for name in names if self._listed.get(name)}
        self._told = False
        return found


def _kept(controller: Any, names: set[str]) -> dict[str, dict[str, Reported]]:
    kept = [one for one in _answer(controller.list_deployment_ids.remote()) if one.app_name in names]
    asked = [controller._get_running_replica_details_for_deployment.remote(one.app_name, one.name) for one in kept]
    states = [controller.get_deployment_status.remote(one.name, one.app_name) for one in kept]
    found: dict[str, dict[str, Reported]] = {}
    for one, replicas, state in zip(kept, _answer(asked), _answer(states), strict=True):
        found.setdefault(one.app_name, {})[one.name] = _earlier([replica.replica_id for replica in replicas], state)
    return found


def _earlier(running: Sequence[str], status: bytes | None) -> Reported:
    """A deployment of the last version; Serve tells the ids of its replicas, and whether they are what it wants."""
    from ray.serve._private.common import DeploymentStatus, DeploymentStatusInfo
    from ray.serve.generated.serve_pb2 import DeploymentStatusInfo as Message

    replicas = [{"replica_id": one, "state": "RUNNING"} for one in running]
    if running or status is None:
        return {"replicas": replicas}
    state = DeploymentStatusInfo.from_proto(Message.FromString(status)).status
    scaled_to_zero = state in (DeploymentStatus.HEALTHY, DeploymentStatus.DOWNSCALING)
    return {"replicas": replicas, **({"target_num_replicas": 0} if scaled_to_zero else {})}


def _answer(asked: Any) -> Any:
    import ray

    return ray.get(asked, timeout=ANSWER_S)
