"""The checks find mistakes of every kind, and say where."""

from __future__ import annotations

import pytest

from tests.k8s import mistakes
from tests.k8s.checks import faults, misfits
from tests.k8s.mistakes import GPU_BOX, IN_THE_CONFIG, Mistake, of_service
from tests.k8s.objects import overlay, ray_service
from tests.k8s.schema import core_faults, schema_faults

OF_CHECKS = (
    *mistakes.IN_PODS, *mistakes.IN_REFERENCES, *mistakes.IN_ACCOUNTS, *mistakes.FOR_THE_OPERATOR,
    *mistakes.WITH_SERVE,
)  # fmt: skip


def label(mistake: Mistake) -> str:
    return f"{mistake.path.rpartition('Spec.')[2]}-{mistake.words.partition(':')[0]}"


@pytest.mark.parametrize("mistake", OF_CHECKS, ids=label)
def test_a_mistake_is_found(mistake: Mistake) -> None:
    found = faults(mistake.make(overlay("gpu-prod")))
    assert any(mistake.words in one for one in found), found


@pytest.mark.parametrize(("right", "wrong", "words"), IN_THE_CONFIG, ids=[wrong for _, wrong, _ in IN_THE_CONFIG])
def test_a_mistake_in_the_serve_config_is_found(right: str, wrong: str, words: str) -> None:
    objects = overlay("gpu-prod")
    spec = ray_service(objects)["spec"]
    assert right in spec["serveConfigV2"]
    spec["serveConfigV2"] = spec["serveConfigV2"].replace(right, wrong, 1)
    found = faults(objects)
    assert any(words in one for one in found), found


@pytest.mark.parametrize("mistake", mistakes.FOR_THE_SCHEMA, ids=label)
def test_the_schema_of_kuberay_finds_it(mistake: Mistake) -> None:
    found = list(schema_faults(mistake.make(overlay("gpu-prod"))))
    assert any(mistake.words in one for one in found), found


@pytest.mark.parametrize("mistake", mistakes.FOR_KUBERNETES, ids=label)
def test_the_schemas_of_kubernetes_find_it(mistake: Mistake) -> None:
    found = list(core_faults(mistake.make(overlay("gpu-prod"))))
    assert any(mistake.words in one for one in found), found


def test_a_pod_that_fits_on_no_node_is_found() -> None:
    larger = of_service(f"{GPU_BOX}.resources.requests.cpu", "16", "")
    found = list(misfits("gpu-prod", larger.make(overlay("gpu-prod"))))
    assert found == ["RayService/gigarouter group gpu: needs 16 CPUs, 48 GiB and 1 GPUs, which no node has left"] * 2


def test_there_are_at_least_sixty_mistakes() -> None:
    assert len(OF_CHECKS) + len(IN_THE_CONFIG) >= 60
