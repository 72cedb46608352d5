"""The Helm chart gives the same objects as kustomize, and refuses values that would give others."""

from __future__ import annotations

import importlib.util
import json
import os
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from deployments.local.serve_config import without_accounts
from tests.k8s.checks import faults
from tests.k8s.objects import K8S, Object, Objects, combined, name_of, of_kind, overlay, ray_service

CHART = K8S / "chart"
FILES = {"kind": "values-kind.yaml", "gpu-single": "values.yaml", "gpu-prod": "values-gpu-prod.yaml"}
NAMESPACE: Object = {"namespace": {"create": True}}


def values(file: str) -> Object:
    found: Object = yaml.safe_load((CHART / file).read_text("utf-8"))
    return found


def rendered(chosen: Object, namespace: str = "gigarouter", folder: Path = CHART) -> Objects:
    """The objects of the chart, offline; the test is skipped where there is no Helm."""
    if importlib.util.find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk is not installed; `make k8s-check` installs it")
    import helm_python

    found = helm_python.Chart.load(folder).render(chosen, name="gigarouter", namespace=namespace)
    return [one for text in found.values() for one in yaml.load_all(text, yaml.CSafeLoader) if one]


def merged(below: Any, above: Any) -> Any:
    """As Helm lays one file of values over another."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {key: merged(below.get(key), above[key]) if key in above else below[key] for key in {**below, **above}}


@pytest.mark.parametrize("name", FILES)
def test_it_gives_the_objects_of_the_overlay(name: str) -> None:
    of_helm = {name_of(one): one for one in rendered({**values(FILES[name]), **NAMESPACE})}
    of_kustomize = {name_of(one): one for one in overlay(name)}
    assert of_helm.keys() == of_kustomize.keys()
    for key, one in of_kustomize.items():
        assert of_helm[key] == one, key


@pytest.mark.parametrize(
    ("chosen", "component"),
    [
        ({"faultTolerance": {"backend": "redis"}}, "gcs-ft-redis"),
        ({"faultTolerance": {"backend": "rocksdb"}}, "gcs-ft-rocksdb"),
        ({"modelCache": {"enabled": True}}, "model-cache-pvc"),
        ({"monitoring": {"enabled": True}}, "monitoring"),
        ({"networkPolicy": {"enabled": True}}, "network-policy"),
        ({"ingress": {"enabled": True}}, "tls-ingress"),
    ],
)
def test_a_switch_is_a_component(chosen: Object, component: str, tmp_path: Path) -> None:
    image = {"image": {"repository": "gigarouter", "tag": "0.1.0-cuda"}}
    of_helm = {name_of(one): one for one in rendered({**chosen, **NAMESPACE, **image})}
    of_kustomize = {name_of(one): one for one in combined(tmp_path, "overlays/gpu-single", [component])}
    plain = ray_service(list(of_kustomize.values()))["spec"]["rayClusterConfig"]
    groups = (plain["headGroupSpec"], *plain["workerGroupSpecs"])
    jobs = (one["spec"] for one in of_kustomize.values() if one["kind"] == "Job")
    for group in (*groups, *jobs):  # the overlay has put a registry before the name
        group["template"]["spec"]["containers"][0]["image"] = "gigarouter:0.1.0-cuda"
    assert of_helm == of_kustomize


def test_another_namespace_holds_everything() -> None:
    for one in rendered({**values("values-gpu-prod.yaml"), **NAMESPACE}, namespace="vision"):
        where = one["metadata"]["name"] if one["kind"] == "Namespace" else one["metadata"]["namespace"]
        assert where == "vision"
        assert 'namespace="gigarouter"' not in json.dumps(one).replace("\\", "")


def test_your_own_config_takes_the_place_of_ours() -> None:
    config = (
        (K8S / "base/serve_config.yaml").read_text("utf-8").replace("request_timeout_s: 120", "request_timeout_s: 60")
    )
    chosen = {"serve": {"preset": "gpu", "config": config, "transport": "RAY_SERVE_ENABLE_HA_PROXY=1\nA=b=c d\n"}}
    objects = rendered({**chosen, **NAMESPACE})
    assert ray_service(objects)["spec"]["serveConfigV2"] == config
    (found,) = of_kind(objects, "ConfigMap")
    assert found["data"] == {"RAY_SERVE_ENABLE_HA_PROXY": "1", "A": "b=c d"}
    assert found["metadata"]["name"] in json.dumps(ray_service(objects))


def test_namespaces_and_names_of_others_can_be_chosen() -> None:
    chosen = {
        "networkPolicy": {
            "enabled": True,
            "operatorNamespace": "ray",
            "monitoringNamespace": "prometheus",
            "databaseNamespace": "data",
        },
        "ingress": {"enabled": True, "host": "vlm.test", "className": "traefik", "clusterIssuer": "own-ca"},
    }
    objects = rendered({**chosen, **NAMESPACE})
    text = yaml.safe_dump_all(objects)
    assert "kuberay-system" not in text
    assert text.count("kubernetes.io/metadata.name: data\n") == 2, "for the routers and for the Job"
    assert "metadata.name: databases" not in text
    assert "example.com" not in yaml.safe_dump_all(of_kind(objects, "Ingress"))
    (ingress,) = of_kind(objects, "Ingress")
    assert ingress["spec"]["tls"][0]["hosts"] == [ingress["spec"]["rules"][0]["host"]] == ["vlm.test"]
    assert ingress["spec"]["ingressClassName"] == "traefik"
    assert ingress["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "own-ca"


def test_your_own_config_may_have_no_accounts() -> None:
    config = without_accounts(yaml.safe_load((K8S / "base/serve_config.yaml").read_text("utf-8")))
    chosen = {
        "serve": {"preset": "gpu", "config": yaml.safe_dump(config), "transport": "A=1\n"},
        "accounts": {"enabled": False},
    }
    assert refusals(chosen) == ""
    objects = rendered({**chosen, **NAMESPACE})
    assert of_kind(objects, "Job") == []
    assert "GIGAROUTER_DATABASE_URL" not in json.dumps(objects)


def test_an_incremental_upgrade_can_be_chosen() -> None:
    options = {"gatewayClassName": "istio", "maxSurgePercent": 50, "stepSizePercent": 10, "intervalSeconds": 30}
    strategy = {"type": "NewClusterWithIncrementalUpgrade", "clusterUpgradeOptions": options}
    objects = rendered({**values("values-gpu-prod.yaml"), "upgradeStrategy": strategy, **NAMESPACE})
    assert ray_service(objects)["spec"]["upgradeStrategy"] == strategy
    assert faults(objects) == []


def test_helm_itself_refuses_a_wrong_value() -> None:
    with pytest.raises(Exception, match="bakend"):
        rendered({"faultTolerance": {"bakend": "redis"}})


@cache
def validator() -> Draft7Validator:
    return Draft7Validator(json.loads((CHART / "values.schema.json").read_text("utf-8")))


def refusals(chosen: Object) -> str:
    """What the schema says of values that are laid over the chart's own."""
    found = merged(values("values.yaml"), chosen)
    return "\n".join(f"{list(error.absolute_path)}: {error.message}" for error in validator().iter_errors(found))


@pytest.mark.parametrize("file", FILES.values())
def test_our_own_values_are_accepted(file: str) -> None:
    assert refusals(values(file)) == ""


INCREMENTAL = {"type": "NewClusterWithIncrementalUpgrade"}

WRONG: list[tuple[Object, str]] = [
    ({"imagee": {}}, "'imagee' was unexpected"),
    ({"image": {"tag": "latest"}}, "['image', 'tag']"),
    ({"image": {"tag": ""}}, "['image', 'tag']"),
    ({"image": {"repository": "Registry/x y"}}, "['image', 'repository']"),
    ({"image": {"pullPolicy": "Always"}}, "'pullPolicy' was unexpected"),
    ({"serve": {"preset": "cpu"}}, "'cpu' is not one of"),
    ({"serve": {"config": "applications: []"}}, "['serve', 'transport']"),
    ({"serve": {"transport": "A=1"}}, "['serve', 'transport']"),
    ({"upgradeStrategy": {"type": "Recreate"}}, "'Recreate' is not one of"),
    ({"upgradeStrategy": INCREMENTAL, "autoscaler": {"enabled": True}}, "'clusterUpgradeOptions' is a required"),
    ({"upgradeStrategy": {"type": "NewCluster", "clusterUpgradeOptions": {"stepSizePercent": 0}}}, "stepSizePercent"),
    ({"head": {"resources": {"limits": {"cpu": "2"}}}}, "'cpu' was unexpected"),
    ({"head": {"resources": {"requests": {"memory": "8 GB"}}}}, "'8 GB' does not match"),
    ({"cpu": {"replicas": "2"}}, "'2' is not of type 'integer'"),
    ({"cpu": {"minReplicas": 0}}, "0 is less than the minimum of 1"),
    ({"cpu": {"maxReplicas": 2_147_483_647}}, "is greater than the maximum"),
    ({"gpu": {"enabled": False}}, "['gpu', 'enabled']: True was expected"),
    ({"gpu": {"idleTimeoutSeconds": 60}}, "['autoscaler', 'enabled']: True was expected"),
    ({"autoscaler": {"enabled": "yes"}}, "'yes' is not of type 'boolean'"),
    ({"autoscaler": {"version": "v1"}}, "'version' was unexpected"),
    ({"faultTolerance": {"backend": "memcached"}}, "'memcached' is not one of"),
    ({"podDisruptionBudgets": {"enabled": True}}, "['cpu', 'minReplicas']: 1 is less than the minimum of 2"),
    ({"serve": {"preset": "miniatures"}, "gpu": {"enabled": False}, "modelCache": {"enabled": True}}, "True was"),
    ({"networkPolicy": {"operatorNamespace": "kube_ray"}}, "'kube_ray' does not match"),
    ({"networkPolicy": {"databaseNamespace": "data bases"}}, "'data bases' does not match"),
    ({"accounts": {"enabled": False}}, "['accounts', 'enabled']: True was expected"),
    ({"accounts": {"databaseUrl": "postgresql://x"}}, "'databaseUrl' was unexpected"),
    ({"serve": {"preset": "miniatures"}, "gpu": {"enabled": False}}, "['accounts', 'enabled']: False was expected"),
    ({"ingress": {"host": "https://x.test"}}, "'https://x.test' does not match"),
    ({"ingress": {"tls": False}}, "'tls' was unexpected"),
    ({"namespace": {}, "monitoring": {"enabled": None}}, "None is not of type 'boolean'"),
]


@pytest.mark.parametrize(("chosen", "words"), WRONG, ids=[json.dumps(chosen) for chosen, _ in WRONG])
def test_a_wrong_value_is_refused(chosen: Object, words: str) -> None:
    assert words in refusals(deepcopy(chosen))


def test_at_least_twenty_wrong_values_are_tried() -> None:
    assert len(WRONG) >= 20


def test_it_holds_no_copy_of_a_manifest() -> None:
    for path in (CHART / "objects").iterdir():
        assert path.is_symlink(), path
        assert not os.readlink(path).startswith("/")
        assert path.exists(), path


def test_its_version_is_that_of_the_images() -> None:
    chart = values("Chart.yaml")
    assert values("values.yaml")["image"]["tag"] == f"{chart['appVersion']}-cuda"
    assert values("values-kind.yaml")["image"]["tag"] == f"{chart['appVersion']}-cpu"
