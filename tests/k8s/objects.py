"""What kustomize makes of k8s/, and how the checks look at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("kind", "gpu-single", "gpu-prod")

Object = dict[str, Any]
Objects = list[Object]


@dataclass(frozen=True, slots=True)
class Pod:
    """A template of Pods: where it stands, its metadata and its spec."""

    place: str
    metadata: Object
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """Those that run and those that come before."""
        return [*self.spec.get("initContainers", []), *self.spec.get("containers", [])]

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its Pods, without those of an operator."""
        return dict(self.metadata.get("labels") or {})


def kubectl() -> str:
    """The kubectl beside this interpreter, or else that of the machine; the test is skipped where there is none."""
    beside = Path(sys.prefix) / "bin" / "kubectl"
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        pytest.skip("there is no kubectl to build the manifests with; `make k8s-check` installs one")
    return found


def built(folder: Path) -> Objects:
    """The objects of a kustomization."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, yaml.CSafeLoader) if one]


@cache
def _of_overlay(name: str) -> Objects:
    return built(K8S / "overlays" / name)


def overlay(name: str) -> Objects:
    """The objects of an overlay, which the caller may change."""
    return deepcopy(_of_overlay(name))


def combined(folder: Path, base: str, components: Sequence[str]) -> Objects:
    """The objects of ``base`` with ``components``, by a kustomization that is written to ``folder``."""
    relative = Path(os.path.relpath(K8S, folder))
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(relative / base)],
        "components": [str(relative / "components" / one) for one in components],
        "images": [{"name": "gigarouter", "newTag": "0.1.0-cuda"}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content), "utf-8")
    return built(folder)


def of_kind(objects: Objects, kind: str) -> Objects:
    """The objects of a kind."""
    return [one for one in objects if one.get("kind") == kind]


def name_of(one: Object) -> str:
    """``Kind/name``, for messages."""
    return f"{one.get('kind')}/{(one.get('metadata') or {}).get('name')}"


def ray_service(objects: Objects) -> Object:
    """The only RayService."""
    (found,) = of_kind(objects, "RayService")
    return found


def cluster(objects: Objects) -> Object:
    """Its rayClusterConfig."""
    found: Object = ray_service(objects)["spec"]["rayClusterConfig"]
    return found


def ray_groups(objects: Objects) -> Iterator[tuple[str, Object]]:
    """(place, group) of the head and of each group of workers."""
    found = cluster(objects)
    yield "RayService/gigarouter head", found["headGroupSpec"]
    for group in found.get("workerGroupSpecs") or []:
        yield f"RayService/gigarouter group {group.get('groupName')}", group


def ray_pods(objects: Objects) -> Iterator[Pod]:
    """The Pods of Ray; the head comes first."""
    for place, group in ray_groups(objects):
        template = group["template"]
        yield Pod(place, template.get("metadata") or {}, template["spec"])


def pods(objects: Objects) -> Iterator[Pod]:
    """All templates of Pods."""
    yield from ray_pods(objects)
    for one in objects:
        template = (one.get("spec") or {}).get("template")
        if one["kind"] in ("StatefulSet", "Deployment", "DaemonSet", "Job") and template:
            yield Pod(name_of(one), template.get("metadata") or {}, template["spec"])


def env_of(container: Object) -> dict[str, Any]:
    """The variables of a container by name: a value, or a mapping that says where it comes from."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container.get("env") or []}
