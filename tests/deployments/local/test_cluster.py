"""What the starter reports of applications, without Ray: the status is a substitute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from deployments.local.__main__ import main
from deployments.local.cluster import Progress, StartError


def application(state: str, message: str = "", of_deployment: str = "") -> Any:
    deployment = SimpleNamespace(message=of_deployment)
    return SimpleNamespace(status=SimpleNamespace(value=state), message=message, deployments={"Replica": deployment})


class Cluster:
    """``ray.serve.status`` as the test wants it."""

    def __init__(self) -> None:
        self.applications: dict[str, Any] = {}
        self.printed: list[str] = []
        self.now = 0.0
        self.progress = Progress(lambda: self, {"router", "blip-large"}, self.printed.append, lambda: self.now)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_reports_each_change_once_and_ends_when_all_run(cluster: Cluster) -> None:
    assert not cluster.progress()
    cluster.applications = {"blip-large": application("DEPLOYING"), "router": application("RUNNING")}
    assert not cluster.progress()
    assert not cluster.progress()
    cluster.applications["blip-large"] = application("RUNNING")
    assert cluster.progress()
    assert cluster.printed == ["blip-large: starting", "router: ready", "blip-large: ready"]


def test_reminds_of_those_that_are_still_awaited(cluster: Cluster) -> None:
    cluster.applications = {"blip-large": application("DEPLOYING"), "router": application("RUNNING")}
    for cluster.now in (0, 20, 40, 60, 80):
        assert not cluster.progress()
    assert cluster.printed[2:] == ["still waiting for blip-large"] * 2
    assert cluster.progress.waiting == ["blip-large"]


def test_other_applications_do_not_count(cluster: Cluster) -> None:
    cluster.applications = {name: application("RUNNING") for name in ("router", "stranger")}
    assert not cluster.progress()


def test_of_a_failure_everything_is_printed_and_the_cause_is_the_error(cluster: Cluster) -> None:
    cluster.applications = {
        "blip-large": application("DEPLOY_FAILED", "It failed.", "Traceback\nThere is no folder x.")
    }
    with pytest.raises(StartError, match=r"^blip-large cannot run: There is no folder x.$"):
        cluster.progress()
    assert cluster.printed == ["blip-large: deploy failed", "It failed.\nTraceback\nThere is no folder x."]


def test_a_failure_without_a_message_is_still_reported(cluster: Cluster) -> None:
    cluster.applications = {"blip-large": application("DEPLOY_FAILED")}
    with pytest.raises(StartError, match="Serve gives no reason"):
        cluster.progress()


@pytest.mark.parametrize("port", ["0", "65536", "-1", "web"])
def test_a_port_out_of_range_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--port={port}"])
    assert ended.value.code == 2
    assert "from 1 to 65535" in capsys.readouterr().err
