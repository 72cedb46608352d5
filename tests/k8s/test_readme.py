"""k8s/README.md names what is there."""

from __future__ import annotations

import re

import yaml

from tests.k8s.checks import NODES, faults
from tests.k8s.objects import K8S, OVERLAYS, ROOT, cluster, overlay
from tests.k8s.reference_rules import YOUR_SECRETS
from tests.k8s.schema import core_faults
from tests.k8s.serve_rules import locked_ray
from vlm.models.cards import cards

TEXT = (K8S / "README.md").read_text("utf-8")


def test_every_component_and_overlay_is_named() -> None:
    for folder in ("components", "overlays"):
        for path in (K8S / folder).iterdir():
            assert path.name in TEXT


def test_its_objects_go_with_those_of_production() -> None:
    texts = re.findall(r"^```yaml\n(apiVersion:.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    objects = [one for text in texts for one in yaml.safe_load_all(text)]
    assert {one["kind"] for one in objects} == {"Ingress", "NetworkPolicy"}
    together = [*overlay("gpu-prod"), *objects]
    assert faults(together) == []
    assert list(core_faults(together)) == []


def test_the_versions_are_those_of_the_manifests() -> None:
    assert f"| Ray | {locked_ray()}, as in the image" in TEXT


def test_every_secret_that_the_reader_makes_is_in_the_table() -> None:
    assert set(re.findall(r"^ *\| `(gigarouter-[a-z]+)`", TEXT, re.MULTILINE)) == YOUR_SECRETS


def test_what_the_job_fetches_is_what_is_served() -> None:
    """Without a further argument, the first release of a card is fetched."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text("utf-8"))
    served = {(one["args"]["checkpoint"], one["args"]["revision"]) for one in config["applications"][1:]}
    fetched = {(card.hugging_face_id, card.releases[0].revision) for card in cards().values() if card.releases}
    assert served <= fetched


def test_the_sizes_are_those_of_the_pods() -> None:
    _, group = cluster(overlay("gpu-prod"))["workerGroupSpecs"]
    requests = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert f"| `gpu` | {requests['cpu']} | {requests['memory'].removesuffix('Gi')} GiB |" in TEXT


def test_every_overlay_has_nodes_to_fit_on() -> None:
    assert NODES.keys() == set(OVERLAYS)


def test_every_value_of_the_chart_is_in_its_table() -> None:
    (table,) = re.findall(r"^\| value \| default \| \|\n(?:\|.*\n)+", TEXT, re.MULTILINE)
    for section in yaml.safe_load((K8S / "chart/values.yaml").read_text("utf-8")):
        assert f"`{section}" in table
