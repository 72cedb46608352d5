"""Objects against the schemas of their kinds, strictly: an unknown key is a fault, which the API server would drop.

The RayService's schema is that of KubeRay's CRD, from the folder that the variable KUBERAY_CRD_DIR names: a
``*rayservice*`` file, as YAML or as gzipped JSON. Those of Kubernetes' own kinds come with the package
kubernetes-validate. Without either, the tests that need it are skipped and say so.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.k8s.objects import Object, Objects, name_of

CRD_DIR = "KUBERAY_CRD_DIR"
KUBERNETES = "1.33"
OPERATORS = ("ray.io/", "monitoring.coreos.com/")
"""Groups whose schemas do not come with Kubernetes."""

Json = dict[str, Any]


def schema_faults(objects: Objects) -> Iterator[str]:
    """What the schema of a RayService says against it; the test is skipped where there is no such schema."""
    for one in objects:
        if one["apiVersion"].startswith("ray.io/"):
            yield from ray_faults(one)


def ray_faults(one: Object) -> Iterator[str]:
    """The same for one RayService."""
    for error in sorted(_validator().iter_errors(one), key=lambda found: [str(step) for step in found.absolute_path]):
        yield f"{name_of(one)}: {'.'.join(str(step) for step in error.absolute_path)}: {error.message}"


def core_faults(objects: Objects) -> Iterator[str]:
    """What Kubernetes' own schemas say, in strict form; the test is skipped where they are not installed."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        pytest.skip("kubernetes-validate is not installed; `make k8s-check` installs it")
    import kubernetes_validate

    for one in objects:
        if one["apiVersion"].startswith(OPERATORS):
            continue
        try:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name_of(one)}: {'.'.join(str(step) for step in error.path)}: {error.message}"


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(strict(_crd_schema()))


def _crd_schema() -> Json:
    folder = os.environ.get(CRD_DIR)
    if not folder:
        pytest.skip(f"{CRD_DIR} names no folder with KubeRay's CRDs, so that the RayService's schema is not checked")
    found = sorted(path for path in Path(folder).glob("*rayservice*") if path.is_file())
    if not found:
        pytest.skip(f"{CRD_DIR}={folder} has no file *rayservice*")
    return _schema_of(_read(found[-1]))


def _read(path: Path) -> Json:
    if path.suffix == ".gz":
        with gzip.open(path) as opened:
            return dict(json.load(opened))
    return dict(yaml.safe_load(path.read_text("utf-8")))


def _schema_of(crd: Json) -> Json:
    (version,) = (one for one in crd["spec"]["versions"] if one["name"] == "v1")
    return dict(version["schema"]["openAPIV3Schema"])


def strict(schema: Any) -> Any:
    """A CRD's schema as JSON schema that also refuses unknown keys.

    What Kubernetes adds to JSON schema is translated: ``x-kubernetes-int-or-string``, ``nullable``, and that a key with
    a default may be left out.
    """
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: value for key, value in schema.items() if not key.startswith("x-") and key != "properties"}
    made = {
        key: strict(value) if key in ("items", "additionalProperties", "allOf") else value
        for key, value in made.items()
    }
    if isinstance(properties := schema.get("properties"), dict):
        made["properties"] = {name: strict(one) for name, one in properties.items()}
        made["required"] = [name for name in schema.get("required", []) if "default" not in properties.get(name, {})]
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if schema.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made
