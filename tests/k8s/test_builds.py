"""Every overlay, and every component with and without the others, is built and has no fault that a check knows."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import yaml

from deployments.environment import main as print_environment
from tests.k8s.checks import faults, misfits
from tests.k8s.objects import K8S, OVERLAYS, ROOT, combined, of_kind, overlay, ray_service
from tests.k8s.schema import core_faults, schema_faults

ANYWHERE = ("gcs-ft-redis", "gcs-ft-rocksdb", "model-cache-pvc", "monitoring", "network-policy", "tls-ingress")
SCALED = ("incremental-upgrade", "pdb")
"""Components that need the autoscaler or several Pods of a group, as only gpu-prod has them."""

PAIRS = [pair for pair in combinations(ANYWHERE, 2) if not {"gcs-ft-redis", "gcs-ft-rocksdb"} <= set(pair)]
ALL = [tuple(one for one in ANYWHERE if one != left_out) for left_out in ("gcs-ft-redis", "gcs-ft-rocksdb")]


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_no_fault(name: str) -> None:
    assert faults(overlay(name)) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_s_rayservice_fits_the_schema_of_kuberay(name: str) -> None:
    assert list(schema_faults(overlay(name))) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_s_other_objects_fit_the_schemas_of_kubernetes(name: str) -> None:
    assert list(core_faults(overlay(name))) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_s_pods_fit_on_the_nodes_that_the_readme_names(name: str) -> None:
    assert list(misfits(name, overlay(name))) == []


@pytest.mark.parametrize("components", [*((one,) for one in ANYWHERE), *PAIRS, *ALL], ids="+".join)
def test_components_go_together_on_one_gpu(components: tuple[str, ...], tmp_path: Path) -> None:
    objects = combined(tmp_path, "overlays/gpu-single", components)
    assert faults(objects) == []


@pytest.mark.parametrize("components", [("gcs-ft-redis",), ("gcs-ft-rocksdb",), ("monitoring", "network-policy")])
def test_components_go_with_kind(components: tuple[str, ...], tmp_path: Path) -> None:
    assert faults(combined(tmp_path, "overlays/kind", components)) == []


def test_an_incremental_upgrade_goes_with_production(tmp_path: Path) -> None:
    objects = combined(tmp_path, "overlays/gpu-prod", ["incremental-upgrade"])
    assert faults(objects) == []
    assert list(schema_faults(objects)) == []


def test_rocksdb_fits_the_schema(tmp_path: Path) -> None:
    assert list(schema_faults(combined(tmp_path, "overlays/gpu-single", ["gcs-ft-rocksdb"]))) == []


def test_every_component_is_tried() -> None:
    there = {path.name for path in (K8S / "components").iterdir()}
    assert there == {*ANYWHERE, *SCALED, "gpu", "accounts"}
    used = yaml.safe_load((K8S / "overlays/gpu-prod/kustomization.yaml").read_text("utf-8"))["components"]
    assert "../../components/pdb" in used


def test_budgets_need_more_than_one_pod(tmp_path: Path) -> None:
    found = faults(combined(tmp_path, "overlays/gpu-single", ["pdb"]))
    assert any("no node can be drained" in one for one in found)


def test_the_model_cache_needs_a_group_with_gpus(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="test operation does not apply"):
        combined(tmp_path, "overlays/kind", ["model-cache-pvc"])


def test_the_serve_config_is_the_one_at_the_top_byte_for_byte() -> None:
    source = (ROOT / "serve_config.yaml").read_bytes()
    assert (K8S / "base/serve_config.yaml").read_bytes() == source
    for name in ("gpu-single", "gpu-prod"):
        assert ray_service(overlay(name))["spec"]["serveConfigV2"].encode() == source


def test_kind_has_its_own_config_byte_for_byte() -> None:
    deployed = ray_service(overlay("kind"))["spec"]["serveConfigV2"]
    assert deployed.encode() == (K8S / "overlays/kind/serve_config.yaml").read_bytes()


def test_kind_serves_the_models_of_make_serve_with_the_same_settings() -> None:
    here, there = (
        {one["name"]: one.get("args") or {} for one in yaml.safe_load(path.read_text("utf-8"))["applications"]}
        for path in (K8S / "overlays/kind/serve_config.yaml", ROOT / "serve_config.local.yaml")
    )
    assert here.keys() == there.keys()
    for name in here.keys() - {"router"}:
        assert here[name] == {**there[name], "checkpoint": f"/opt/gigarouter/miniatures/{name}"}
    assert here["router"]["required_models"] == there["router"]["required_models"]


@pytest.mark.parametrize("folder", ["base", "overlays/kind"])
def test_the_transport_s_variables_are_those_that_are_printed(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_environment(["--env-file", str(K8S / folder / "serve_config.yaml")]) == 0
    assert (K8S / folder / "transport.env").read_text("utf-8") == capsys.readouterr().out


def test_other_variables_are_another_cluster(tmp_path: Path) -> None:
    """The ConfigMap's name has a hash of its content, and the RayService names it: its Pods change with it."""
    (production,) = of_kind(overlay("gpu-prod"), "ConfigMap")
    (laptop,) = of_kind(overlay("kind"), "ConfigMap")
    assert production["metadata"]["name"] != laptop["metadata"]["name"]
    assert production["metadata"]["name"] in str(ray_service(overlay("gpu-prod")))
