"""The document of the router, and validators of its schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import pytest

from router.app import create_app
from router.config import RouterConfig
from router.openapi.document import document_bytes, operations_of
from tests.router.world import FakeBackend

jsonschema: Any = pytest.importorskip("jsonschema")

Json = dict[str, Any]


@cache
def served() -> Json:
    """The document as it is served."""
    app = create_app(FakeBackend(), RouterConfig())
    document: Json = json.loads(document_bytes(operations_of(app.routes)))
    return document


@cache
def validator(name: str) -> Any:
    """A validator of a named schema."""
    return _validator({"$ref": f"#/components/schemas/{name}", "components": served()["components"]})


@cache
def strict_validator(name: str) -> Any:
    """The same of an answer, in which every key must be one that the schema names."""
    return _validator({"$ref": f"#/components/schemas/{name}", "components": closed_components()})


@cache
def event_validator(path: str) -> Any:
    """A validator of the JSON in the events of ``POST path``, as strict."""
    answer = served()["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    [data] = [one for one in answer["properties"]["data"]["anyOf"] if "contentSchema" in one]
    event, _error = data["contentSchema"]["anyOf"]
    return _validator({**event, "components": closed_components()})


def _validator(schema: Json) -> Any:
    kind = jsonschema.Draft202012Validator
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


@cache
def closed_components() -> Json:
    """The components, in which objects have the keys that they name and no others."""
    components: Json = deepcopy(served()["components"])
    for schema in objects(components["schemas"]):
        schema["additionalProperties"] = False
    return components


def objects(schema: Any) -> Iterator[Json]:
    """Every schema of an object with named keys, within a schema."""
    if isinstance(schema, list):
        for inner in schema:
            yield from objects(inner)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
            yield schema
        for inner in schema.values():
            yield from objects(inner)


def operations() -> Iterator[tuple[str, str, Json]]:
    """Path, method and operation of each."""
    for path, methods in served()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation
