"""docs/api.md and the OpenAPI document say the same: routes, fields with types, ranges and defaults, codes, headers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.openapi.error_codes import CASES
from router.openapi.parts import HEADERS, IDEMPOTENCY_KEY, PARAMETERS
from tests.router.openapi.documents import Json, operations, served

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text("utf-8")


def rows(heading: str, columns: int) -> list[list[str]]:
    """The cells of the tables below a heading, without their heads."""
    section = PAGE[PAGE.index(f"\n{heading}\n") + len(heading) :]
    section = section[: re.search(r"\n#+ ", section[1:]).start() + 1]  # type: ignore[union-attr]  # a heading follows
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")]
    return [one for one in cells if len(one) == columns and one[0].startswith("`")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_routes() -> None:
    told = {
        route for line in PAGE.splitlines() if line.startswith("| `") for route in re.findall(r"`([A-Z]+ /\S+)`", line)
    }
    assert told == {f"{method.upper()} {path}" for path, method, _ in operations()}


def test_codes() -> None:
    told: set[tuple[int, str | None]] = set()
    for status, code in re.findall(
        r"^\| ([\d, ]+) \| [^|]*\| ([^|]+) \|", PAGE[PAGE.index("\n## Errors") :], re.MULTILINE
    ):
        told |= {
            (int(one), name) for one in status.split(", ") for name in (*quoted(code), *([] if "`" in code else [None]))
        }
    assert told == {(case.status, case.code) for case in CASES}


def test_headers() -> None:
    section = PAGE[PAGE.index("\n## Headers") : PAGE.index("\n## Models")]
    asked, answered = section.split("| response header |")
    names = [name for line in asked.splitlines() if line.startswith("| `") for name in quoted(line.split("|")[1])]
    assert set(names) - {"Origin", "Host"} == {parameter.name for parameter in (*PARAMETERS, IDEMPOTENCY_KEY)}
    assert {
        name for line in answered.splitlines() for name in quoted(line.split("|")[1] if "|" in line else "")
    } == set(HEADERS)


# Fields of a request


def schemas_of(field: Json) -> Iterator[Json]:
    """The schemas of a field's values, null left out."""
    for one in field.get("anyOf", [field]):
        while "$ref" in one:
            one = served()["components"]["schemas"][one["$ref"].rsplit("/", 1)[1]]  # noqa: PLW2901
        if one.get("type") != "null":
            yield one


def in_words(field: Json) -> str:
    """The type and the range of a field's values, as the tables say them."""
    said = [words_of(one) for one in schemas_of(field)]
    return ", or ".join(dict.fromkeys(said)) if "list" in said[-1] else " or ".join(dict.fromkeys(said))


def words_of(schema: Json) -> str:
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"]) if len(schema["enum"]) < 4 else "string"
    match schema.get("type", "object"):
        case "array":
            return f"list of {count(schema)}"
        case "object" if "maxProperties" in schema:
            return f"object of up to {schema['maxProperties']}"
        case "string" if schema.get("maxLength", 0) > 256:
            return f"string, up to {schema['maxLength']} characters"
        case "number" | "integer":
            return range_of(schema)
        case kind:
            return str(kind)


def count(schema: Json) -> str:
    most = schema["maxItems"]
    items = " strings" if schema["items"].get("type") == "string" and most > 4 else ""
    return f"{schema['minItems']} to {most}{items}" if "minItems" in schema else f"up to {most}{items}"


def range_of(schema: Json) -> str:
    low, above, high = (schema.get(name) for name in ("minimum", "exclusiveMinimum", "maximum"))
    if schema.get("exclusiveMaximum") == 2**63:
        return "64-bit integer"
    if above is not None:
        return f"above {above}, to {high}"
    return f"integer from {low}" if high is None else f"{low} to {high}"


def default_of(name: str, field: Json, required: list[str]) -> str:
    if name in required:
        return "required"
    default: Any = field.get("default")
    if default is None:
        return ""
    return f"`{json.dumps(default)}`" if isinstance(default, dict | list | str) else json.dumps(default)


TABLES = {"## Request": "ChatCompletionRequest", "### Task object": "TaskBody"}
SAID_IN_WORDS = {"random", "the prompt", "50 for `moondream-2`", "the router's setting, else false"}
"""Defaults that are not one value."""


def fields() -> Iterator[Any]:
    for heading, name in TABLES.items():
        schema = served()["components"]["schemas"][name]
        for names, kind, default, _ in rows(heading, 4):
            for one in quoted(names):
                yield pytest.param(schema, one, kind, default, id=f"{name}.{one}")


@pytest.mark.parametrize(("schema", "name", "kind", "default"), list(fields()))
def test_a_field_of_a_request(schema: Json, name: str, kind: str, default: str) -> None:
    field = schema["properties"][name]
    assert kind == in_words(field)
    if default not in SAID_IN_WORDS:
        assert default.replace("`normal`", '`"normal"`') == default_of(name, field, schema["required"])


@pytest.mark.parametrize(("heading", "name"), list(TABLES.items()))
def test_every_field_has_its_row(heading: str, name: str) -> None:
    told = {one for row in rows(heading, 4) for one in quoted(row[0])}
    known = {
        one
        for one, field in served()["components"]["schemas"][name]["properties"].items()
        if "anyOf" in field or "type" in field
    }
    assert told == known


# Keys of answers


KEYS = {
    "### Grounding object": ("GroundingJson", "ObjectJson"),
    "### x_gigarouter": ("Extras",),
    "## Models": ("Model",),
}


@pytest.mark.parametrize(("heading", "names"), list(KEYS.items()))
def test_every_key_of_an_answer_has_its_row(heading: str, names: tuple[str, ...]) -> None:
    tables = [*rows(heading, 2), *rows(heading, 3)]
    known = {key for name in names for key in served()["components"]["schemas"][name]["properties"]}
    assert {one for row in tables for one in quoted(row[0])} == known
