"""What Serve's controller reports of the applications, and what that says about a model. Knows no Ray."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from router.backends.base import ModelStatus, ReplicaStatus

logger = logging.getLogger(__name__)

Reported = Mapping[str, Any]
"""One application, as the controller reports it."""

EARLIER = "earlier_version"
"""A key that we add to an application whose ``deployments`` are those of the version before."""

STILL_UP: Mapping[str, str] = {
    "DEPLOYING": "running (a new version is being deployed)",
    "DEPLOY_FAILED": "running (its last deployment failed)",
    "UNHEALTHY": "running (not all replicas are healthy)",
}
"""States in which replicas may go on answering, and how each is called where they do."""

ASLEEP, WAKING = "at zero (a request starts it)", "starting (requests wait for its first replica)"
"""What is said of a model that has no replica although its application runs: it is scaled to zero, or no longer."""

ANSWERING: frozenset[str] = frozenset(("RUNNING", "PENDING_MIGRATION", "RECOVERING"))
"""States of replicas that answer. One recovers while a controller that has been lost and is back asks it who it is."""

REASON_CHARS = 500
"""Longest reason of a failure that is kept."""


@dataclass(frozen=True, slots=True)
class Application:
    """What Serve reports of one model.

    Attributes:
        version: When it was deployed (Unix time), or None while it has no replica, or may have one of the last version.
        replicas: Number of replicas that run, of the deployment with the fewest.
        deployment: Name of its only deployment, which Serve can be asked for while it builds a new version of the
            application; None if there is none, or several.
        failed: No replica answers, and none will before the model is deployed again.
        reason: Why its last deployment failed, in a line; "" if it did not. It may hold paths: for operators only.
    """

    status: ModelStatus
    version: float | None
    replicas: int = 1
    deployment: str | None = None
    failed: bool = False
    reason: str = ""

    @property
    def asleep(self) -> bool:
        """No replica answers, but one is started by a request, or has been by another."""
        return self.status.ready and not self.replicas


def is_bare(application: Reported) -> bool:
    """Whether the report lists no deployments because a new version is built, or could not be."""
    return _text(application["status"]) in ("DEPLOYING", "DEPLOY_FAILED") and not application["deployments"]


def applications_in(report: Mapping[str, Reported], own_name: str) -> dict[str, Application]:
    """Every application but the router's own and those that are being deleted."""
    return {
        name: application_of(name, reported)
        for name, reported in report.items()
        if name != own_name and _text(reported["status"]) != "DELETING"
    }


def routers_in(report: Mapping[str, Reported], own_name: str) -> int:
    """How many replicas of the router run; 1 at least, which is the one that asks."""
    own = report.get(own_name)
    return 1 if own is None else max(1, min(map(_running, own["deployments"].values()), default=1))


def application_of(name: str, reported: Reported) -> Application:
    """What the report says about one model."""
    status, deployments = status_of(name, reported), list(reported["deployments"])
    failed = _text(reported["status"]) == "DEPLOY_FAILED"
    return Application(
        status,
        version_of(reported),
        replicas=min(map(_running, reported["deployments"].values()), default=0),
        deployment=deployments[0] if len(deployments) == 1 else None,
        failed=failed and not status.ready and not _is_mended(reported),
        reason=reason_of(reported) if failed else "",
    )


def status_of(name: str, application: Reported) -> ModelStatus:
    """Ready when running, or when every deployment has a replica that runs.

    The second is a rolling update, one that failed, or a lost replica: refusing then would turn it into an outage.
    The first includes a model scaled to zero, which a request starts again.
    """
    state, deployments = _text(application["status"]), application["deployments"].values()
    up = bool(deployments) and all(_is_up(one, state) for one in deployments)
    ready, detail = state == "RUNNING", state.lower().replace("_", " ")
    if up and state in STILL_UP:
        ready, detail = True, STILL_UP[state]
    elif state == "RUNNING" and deployments and not all(map(_running, deployments)):
        woken = all(one.get("target_num_replicas") for one in deployments)
        detail = WAKING if woken else ASLEEP
    replicas = (replica_of(replica) for one in deployments for replica in one["replicas"])
    return ModelStatus(name, ready=ready, detail=detail, replicas=tuple(replicas))


def replica_of(replica: Reported) -> ReplicaStatus:
    """What may be said of a replica: not where it runs."""
    state = _text(replica["state"]).lower().replace("_", " ")
    return ReplicaStatus(str(replica.get("replica_id", "")), state)


def version_of(application: Reported) -> float | None:
    """See :class:`Application`. To ask a model that is scaled to zero would start it."""
    replicas = (_running(deployment) for deployment in application["deployments"].values())
    settled = _text(application["status"]) == "RUNNING" and any(replicas)
    return float(application["last_deployed_time_s"]) if settled else None


def reason_of(application: Reported) -> str:
    """The last line of what Serve says of a failure: in a traceback, the exception.

    Serve says it of the deployment whose replicas do not start, or else of the application that cannot be built.
    """
    deployments = [one.get("message") or "" for one in application["deployments"].values()]
    messages = deployments if EARLIER not in application else []
    lines = "\n".join((str(application.get("message") or ""), *messages)).strip().splitlines()
    return lines[-1].strip()[:REASON_CHARS] if lines else "Serve gives no reason."


class Failures:
    """Writes a line to the log when a model's deployment has failed, and once for each reason."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def tell(self, applications: Iterable[Application]) -> None:
        """Those of the last report."""
        reasons = {one.status.name: one.reason for one in applications if one.reason}
        for name, reason in reasons.items():
            if self._told.get(name) != reason:
                logger.error("the last deployment of %r failed: %s", name, reason)
        self._told = reasons


def _is_mended(application: Reported) -> bool:
    """Whether Serve will start a replica although the last deployment failed.

    It goes on replacing lost replicas of a version whose successor could not be built, but it no longer scales it: one
    that was scaled to zero stays there.
    """
    deployments = application["deployments"].values()
    return EARLIER in application and not any(one.get("target_num_replicas") == 0 for one in deployments)


def _is_up(deployment: Reported, state: str) -> bool:
    """Whether it has a replica that runs, or is scaled to zero, of which Serve calls each redeployment an update."""
    return bool(_running(deployment)) or (state == "DEPLOYING" and deployment.get("target_num_replicas") == 0)


def _running(deployment: Reported) -> int:
    return sum(_text(replica["state"]) in ANSWERING for replica in deployment["replicas"])


def _text(state: Any) -> str:
    return str(getattr(state, "value", state))
