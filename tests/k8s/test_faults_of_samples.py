"""Faults of the samples that KubeRay and Ray publish: each is absent here, in every overlay."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.k8s.mistakes import of_service
from tests.k8s.objects import K8S, OVERLAYS, Objects, cluster, of_kind, overlay, pods, ray_groups, ray_pods, ray_service
from tests.k8s.pod_rules import probes, resources, secrets, security
from tests.k8s.schema import schema_faults
from tests.k8s.serve_rules import locked_ray, serve_config, times

FILES = sorted(path for path in K8S.rglob("*.yaml"))


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> Objects:
    """The objects of each overlay."""
    return overlay(request.param)


def test_passwords_in_git(objects: Objects) -> None:
    assert list(secrets(objects)) == []
    assert of_kind(objects, "Secret") == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(K8S)))
def test_passwords_in_any_file(path: Path) -> None:
    assert not re.search(
        r"(password|token|secret)\w*: +['\"]?[\w+/]{8,}['\"]?$", path.read_text("utf-8"), re.IGNORECASE
    )


def test_a_serve_config_that_was_pasted_by_hand() -> None:
    for path in FILES:
        assert "serveConfigV2:" not in path.read_text("utf-8"), path


def test_no_drain_and_no_grace(objects: Objects) -> None:
    assert list(times(objects)) == []
    for pod in ray_pods(objects):
        assert pod.spec["terminationGracePeriodSeconds"] == 150


def test_pre_stop_that_stops_ray(objects: Objects) -> None:
    assert all("lifecycle" not in container for pod in pods(objects) for container in pod.containers)


def test_no_pod_disruption_budget() -> None:
    groups = {group["groupName"] for group in cluster(overlay("gpu-prod"))["workerGroupSpecs"]}
    budgets = of_kind(overlay("gpu-prod"), "PodDisruptionBudget")
    assert {one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for one in budgets} == groups


def test_no_security_context(objects: Objects) -> None:
    assert list(security(objects)) == []


def test_no_probes_and_probes_that_need_wget(objects: Objects) -> None:
    assert list(probes(objects)) == []


def test_memory_requests_that_are_not_the_limits(objects: Objects) -> None:
    assert list(resources(objects)) == []


def test_no_maximum_of_workers(objects: Objects) -> None:
    assert all(group["maxReplicas"] <= 8 for _, group in list(ray_groups(objects))[1:])


def test_metadata_that_is_null(objects: Objects) -> None:
    assert all(group["template"]["metadata"] for _, group in ray_groups(objects))


def test_code_that_is_fetched_at_run_time(objects: Objects) -> None:
    text = ray_service(objects)["spec"]["serveConfigV2"]
    assert "working_dir" not in text
    assert "github.com" not in text


def test_models_of_the_hub_are_pinned(objects: Objects) -> None:
    for one in serve_config(objects)["applications"]:
        checkpoint = (one.get("args") or {}).get("checkpoint", "/")
        assert checkpoint.startswith("/") or re.fullmatch("[0-9a-f]{40}", one["args"]["revision"])


def test_another_ray_than_that_of_the_image(objects: Objects) -> None:
    assert cluster(objects)["rayVersion"] == locked_ray()


def test_the_wrong_key_and_the_wrong_place_of_the_guide_to_incremental_upgrades() -> None:
    objects = overlay("gpu-prod")
    spec = ray_service(objects)["spec"]
    spec["rayClusterSpec"] = spec.pop("rayClusterConfig")
    assert any("rayClusterSpec" in one for one in schema_faults(objects))
    misplaced = of_service("spec.upgradeStrategy.maxSurgePercent", 50, "").make(overlay("gpu-prod"))
    assert any("maxSurgePercent" in one for one in schema_faults(misplaced))


def test_proxies_on_the_head_alone(objects: Objects) -> None:
    assert serve_config(objects)["proxy_location"] == "EveryNode"


def test_a_head_that_is_in_the_service_and_runs_replicas(objects: Objects) -> None:
    assert ray_service(objects)["spec"]["excludeHeadPodFromServeSvc"] is True
    assert cluster(objects)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_no_mode_of_authentication(objects: Objects) -> None:
    assert cluster(objects)["authOptions"] == {"mode": "token"}


def test_an_alpha_version_of_the_api(objects: Objects) -> None:
    assert ray_service(objects)["apiVersion"] == "ray.io/v1"


def test_kustomizations_name_only_files_that_are_there() -> None:
    for path in K8S.rglob("kustomization.yaml"):
        content = yaml.safe_load(path.read_text("utf-8"))
        for one in [*content.get("resources", []), *content.get("components", [])]:
            assert (path.parent / one).exists(), f"{path}: {one}"
