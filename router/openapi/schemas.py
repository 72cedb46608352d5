"""Types as the JSON schemas of the document: pydantic's, put together in one namespace, without noise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from vlm.grounding_schema import grounding_schema

Json = dict[str, Any]

COMPONENT = "#/components/schemas/{model}"
GROUNDING: Json = {"$ref": "https://grounding.invalid/GroundingJson"}
"""Stands for the grounding object, which is not a pydantic type, until :func:`component_schemas` puts it in."""


def Says(description: str) -> FieldInfo:  # noqa: N802  # reads as a part of a type
    """What a key means, as a part of its type."""
    field: FieldInfo = Field(description=description)
    return field


class _Schemas(GenerateJsonSchema):
    """Pydantic's schemas, without titles that repeat names, and without the default null of what may be left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


def component_schemas(types: Sequence[Any]) -> tuple[list[Json], Json]:
    """The schema of each of ``types``, most of them references, and the named schemas that they refer to."""
    adapters = [(at, "validation", TypeAdapter(kind)) for at, kind in enumerate(types)]
    made, named = TypeAdapter.json_schemas(adapters, ref_template=COMPONENT, schema_generator=_Schemas)  # type: ignore[arg-type]  # the mode is a literal
    grounding = grounding_schema()
    definitions = {**named.get("$defs", {}), **grounding["$defs"]}
    schemas = [_settled(made[at, "validation"]) for at in range(len(types))]
    return schemas, {name: _settled(definitions[name]) for name in sorted(definitions)}


def _settled(schema: Json) -> Json:
    """With every reference into the components, and open where nothing is said of further keys."""
    prefix = GROUNDING["$ref"].removesuffix("GroundingJson")
    text = json.dumps(schema).replace(prefix, "#/$defs/").replace("#/$defs/", COMPONENT.format(model=""))
    settled: Json = json.loads(text)
    for one in _objects(settled):
        one.setdefault("additionalProperties", True)
        one.pop("title", None)
    return settled


def _objects(schema: Any) -> Iterator[Json]:
    """The schemas of objects within a schema."""
    if isinstance(schema, list):
        for inner in schema:
            yield from _objects(inner)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
            yield schema
        for inner in schema.values():
            yield from _objects(inner)
