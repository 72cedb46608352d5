"""What is asked of Serve's controller, on a substitute for it: the calls, not the cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from router.backends.applications import application_of
from router.backends.controller import Controller

pytest.importorskip("ray.serve")

BUILT = {"status": "RUNNING", "last_deployed_time_s": 1.0, "message": ""}


class Serves:
    """Has a deployment of an earlier version for each of ``kept``: (replicas that run, its status)."""

    def __init__(self, applications: dict[str, Any], **kept: tuple[int, str]) -> None:
        self.applications = applications
        self.kept = kept
        self.gone = ""
        """A call that this release of Ray does not have."""

    def __getattr__(self, name: str) -> Any:
        if name == self.gone:
            raise AttributeError(name)
        return SimpleNamespace(remote=getattr(type(self), f"on_{name.strip('_')}").__get__(self))

    def on_get_serve_instance_details(self) -> Any:
        return {"applications": self.applications}

    def on_list_deployment_ids(self) -> Any:
        return [SimpleNamespace(app_name=name, name="Replica") for name in self.kept]

    def on_get_running_replica_details_for_deployment(self, app_name: str, _name: str) -> Any:
        return [SimpleNamespace(replica_id=f"replica-{number}") for number in range(self.kept[app_name][0])]

    def on_get_deployment_status(self, _name: str, app_name: str) -> bytes:
        from ray.serve._private.common import DeploymentStatus, DeploymentStatusInfo, DeploymentStatusTrigger

        status, trigger = DeploymentStatus(self.kept[app_name][1]), DeploymentStatusTrigger.UNSPECIFIED
        found: bytes = DeploymentStatusInfo("Replica", status, trigger).to_proto().SerializeToString()
        return found


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a controller answer."""

    def answers(controller: Serves) -> None:
        client = SimpleNamespace(_controller=controller)
        monkeypatch.setattr("ray.get", lambda found, *, timeout: found)  # which must be given
        monkeypatch.setattr("ray.serve.context._get_global_client", lambda **_: client)

    return answers


def bare(status: str) -> dict[str, Any]:
    """An application whose new version is being built, or could not be."""
    return {**BUILT, "status": status, "deployments": {}}


@pytest.mark.parametrize(
    ("status", "kept", "ready", "failed"),
    [
        ("DEPLOYING", (1, "HEALTHY"), True, False),
        ("DEPLOYING", (0, "HEALTHY"), True, False),  # scaled to zero: the new version starts when it is built
        ("DEPLOYING", (0, "UNHEALTHY"), False, False),
        ("DEPLOY_FAILED", (1, "HEALTHY"), True, False),
        ("DEPLOY_FAILED", (0, "UNHEALTHY"), False, False),  # its only replica is lost, and Serve starts another
        ("DEPLOY_FAILED", (0, "HEALTHY"), False, True),  # scaled to zero, and Serve no longer scales it
        ("DEPLOY_FAILED", (0, "DOWNSCALING"), False, True),
    ],
)
def test_what_is_kept_of_a_version_whose_successor_is_not_built(
    serve: Any, status: str, kept: tuple[int, str], ready: bool, failed: bool
) -> None:
    serve(Serves({"blip": bare(status)}, blip=kept))
    found = application_of("blip", Controller().report()["blip"])
    assert (found.status.ready, found.failed, found.deployment) == (ready, failed, "Replica")


def test_a_call_of_ray_that_is_gone_costs_no_other_model(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A model that was listed before is taken to be as it was; a new one has nothing that could be known of it."""
    running = {"replicas": [{"state": "RUNNING"}]}
    serves = Serves({name: {**BUILT, "deployments": {"Replica": running}} for name in ("blip", "kosmos")}, blip=(1, ""))
    serve(serves)
    controller = Controller()
    controller.report()
    serves.applications = {**serves.applications, "blip": bare("DEPLOYING"), "added": bare("DEPLOYING")}
    serves.gone = "_get_running_replica_details_for_deployment"
    for _ in range(3):
        found = {name: application_of(name, one) for name, one in controller.report().items()}
        assert {name: one.status.ready for name, one in found.items()} == {"blip": True, "kosmos": True, "added": False}
    assert [record.message for record in caplog.records] == [
        "the replicas of earlier versions cannot be counted: AttributeError"
    ]
