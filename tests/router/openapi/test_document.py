"""The document is valid, complete and the same each time."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.app import create_app
from router.asgi import errors
from router.asgi.errors import TABLE, row_of
from router.backends.base import LocalBackend
from router.config import RouterConfig
from router.openapi.document import operations_of
from router.openapi.error_codes import CASES
from router.openapi.operation import DescribedRoute
from tests.docs.test_api import ERRORS, codes, name_of, sources
from tests.router.openapi.documents import Json, operations, served
from tests.router.world import FakeBackend, client
from vlm.errors import VlmError

ROOT = Path(__file__).parents[3]
APP = create_app(LocalBackend({}), RouterConfig())


def test_every_route_has_an_operation() -> None:
    assert [route for route in APP.routes if not isinstance(route, DescribedRoute)] == []
    described = [(path, operation.method.lower()) for path, operation in operations_of(APP.routes)]
    assert [(path, method) for path, method, _ in operations()] == described


def test_it_is_valid() -> None:
    validator: Any = pytest.importorskip("openapi_spec_validator")
    assert [error.message for error in validator.OpenAPIV31SpecValidator(served()).iter_errors()] == []


def test_every_schema_is_one() -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    for schema in served()["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def objects(value: Any) -> Iterator[Json]:
    """A value and all within it that are objects."""
    if isinstance(value, dict):
        yield value
        value = [*value.values()]
    if isinstance(value, list):
        for inner in value:
            yield from objects(inner)


def references(value: Any) -> Iterator[str]:
    return (one["$ref"] for one in objects(value) if isinstance(one.get("$ref"), str))


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(served())):
        here: Any = served()
        for step in reference.removeprefix("#/").split("/"):
            here = here[step]


def test_nothing_is_named_that_is_not_used() -> None:
    used = set(references(served()))
    for kind in ("schemas", "headers", "parameters"):
        assert {f"#/components/{kind}/{name}" for name in served()["components"][kind]} <= used


def test_no_enum_names_a_value_twice() -> None:
    """1 and true are not the same value in JSON, although Python finds them equal."""
    enums = [one["enum"] for one in objects(served()) if isinstance(one.get("enum"), list)]
    found = [[json.dumps(value, sort_keys=True) for value in one] for one in enums]
    assert ["null", '"auto"', '"none"'] in found
    assert [one for one in found if len(set(one)) != len(one)] == []


def test_names_of_operations_differ() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    assert {tag["name"] for tag in served()["tags"]} == {tag for _, _, one in operations() for tag in one["tags"]}


def test_it_is_the_same_in_every_process() -> None:
    command = [sys.executable, "-m", "router.openapi"]
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        printed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
        assert json.dumps(json.loads(printed)) == json.dumps(served())


@pytest.mark.anyio
async def test_it_is_served_as_json() -> None:
    async with client(FakeBackend()) as http:
        answers = [await http.get("/openapi.json") for _ in range(2)]
    assert answers[0].json() == served()
    assert answers[0].content == answers[1].content
    assert answers[0].headers["content-type"] == "application/json"


def test_its_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert served()["info"]["version"] == project["version"]
    assert served()["info"]["license"]["identifier"] == project["license"]


# Errors


def raised() -> Iterator[tuple[int, str]]:
    """Status and code of each error that the sources make with a code of its own."""
    kinds = {kind.__name__: kind for kind in TABLE}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and name_of(node.func) in ERRORS:
                given = [word.value for word in node.keywords if word.arg == "code"] + node.args[2:3]
                for code in given:
                    if isinstance(code, ast.Constant) and isinstance(code.value, str):
                        yield row_of(kinds[name_of(node.func)]("")).status, code.value


def test_the_codes_are_those_of_the_sources() -> None:
    listed = {(case.status, case.code) for case in CASES}
    of_table = {(row.status, row.code) for row in TABLE.values() if row.code}
    assert {*raised(), *of_table} <= listed
    assert {case.code for case in CASES if case.code} == codes() | {row.code for row in TABLE.values() if row.code}


def test_each_code_has_one_status_unless_it_is_about_urls() -> None:
    several = [case.code for case in CASES if sum(case.code == other.code for other in CASES) > 1]
    assert set(several) == {"unknown_url"}
    assert [case.status for case in CASES] == sorted(case.status for case in CASES)


@pytest.mark.parametrize("kind", [kind for kind in TABLE if kind is not VlmError])
def test_every_kind_of_error_can_be_answered(kind: type[VlmError]) -> None:
    status = row_of(kind("")).status
    assert any(str(status) in operation["responses"] for _, _, operation in operations())


def test_every_code_belongs_to_an_operation() -> None:
    told = {
        code
        for _, _, operation in operations()
        for answer in operation["responses"].values()
        for code in re.findall(r"^- `(\w+)`", answer["description"], re.MULTILINE)
    }
    assert told == {case.code or "null" for case in CASES} - {"unknown_url", "method_not_supported"}
    assert set(errors._ROUTING) == {404, 405}


def responses() -> Iterator[tuple[str, Json]]:
    for _, _, operation in operations():
        yield from operation["responses"].items()


def test_every_answer_has_its_headers() -> None:
    for status, answer in responses():
        assert {"x-request-id", "x-client-request-id", "openai-processing-ms"} <= answer["headers"].keys()
        assert ("retry-after" in answer["headers"]) == (status in ("409", "429", "503"))
        assert ("www-authenticate" in answer["headers"]) == (status == "401")
