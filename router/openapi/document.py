"""The operations as an OpenAPI 3.1 document, in an order that depends on the routes alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import groupby
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from router.openapi.answers import ErrorBody
from router.openapi.error_codes import CASES, ErrorCase
from router.openapi.operation import JSON, Answer, DescribedRoute, Events, Json, Operation, Parameter
from router.openapi.parts import (
    ALWAYS,
    DESCRIPTION,
    HEADERS,
    OF_EVERY_ANSWER,
    OF_LIMITS,
    PARAMETERS,
    SECURITY_SCHEMES,
    TAGS,
)
from router.openapi.schemas import component_schemas

VERSION = "0.1.0"
"""Of the project; a test compares it."""

EVENT_STREAM = "text/event-stream"
OF_STATUS = {
    401: ("www-authenticate",),
    409: ("retry-after",),
    429: ("retry-after", "retry-after-ms", "x-should-retry", *OF_LIMITS),
    503: ("retry-after",),
    507: ("x-should-retry",),
}
"""Headers of errors."""
ERROR = "#/components/schemas/ErrorBody"

Schemas = Mapping[int, Json]
"""The schema of each type by its identity."""


async def openapi_json(request: Request) -> Response:
    """``GET /openapi.json``: the document about the routes of the application that answers."""
    return Response(document_bytes(operations_of(request.app.routes)), media_type=JSON)


def operations_of(routes: Iterable[BaseRoute]) -> tuple[tuple[str, Operation], ...]:
    """The path and the operation of each route that has one, as OpenAPI writes paths."""
    described = (route for route in routes if isinstance(route, DescribedRoute))
    return tuple((re.sub(r":\w+}", "}", route.path), route.operation) for route in described)


@cache
def document_bytes(operations: tuple[tuple[str, Operation], ...]) -> bytes:
    """The document as compact JSON, made once."""
    return json.dumps(document(operations), ensure_ascii=False, separators=(",", ":")).encode()


def document(operations: tuple[tuple[str, Operation], ...]) -> Json:
    """The document of these operations, each with its path."""
    types = [ErrorBody, *(kind for _, operation in operations for kind in operation.types)]
    asked = [kind for kind in types if not _is_schema(kind)]
    made, components = component_schemas(asked)
    schemas = {id(kind): schema for kind, schema in zip(asked, made, strict=True)}
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": "gigarouter",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The server that this document comes from."}],
        "security": [{}, *({name: []} for name in SECURITY_SCHEMES)],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": _paths(operations, schemas),
        "components": {
            "schemas": components,
            "parameters": {one.name: _parameter(one) for one in PARAMETERS},
            "headers": {
                name: {"description": text, "required": name in ALWAYS, "schema": dict(schema)}
                for name, (text, schema) in HEADERS.items()
            },
            "responses": {"unknown_url": _error(404, [_case("unknown_url", 404)])},
            "securitySchemes": {name: dict(scheme) for name, scheme in SECURITY_SCHEMES.items()},
        },
    }


def _paths(operations: Iterable[tuple[str, Operation]], schemas: Schemas) -> Json:
    paths: Json = {}
    for path, operation in operations:
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, schemas)
    return paths


def _operation(operation: Operation, schemas: Schemas) -> Json:
    parameters = [
        *(_parameter(one) for one in operation.parameters),
        *({"$ref": f"#/components/parameters/{one.name}"} for one in PARAMETERS),
    ]
    return {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": operation.description,
        "tags": [operation.tag],
        "parameters": parameters,
        **_body(operation, schemas),
        "responses": {str(status): answer for status, answer in _answers(operation, schemas)},
    }


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _body(operation: Operation, schemas: Schemas) -> Json:
    if not operation.body:
        return {}
    content = {kind: {"schema": _schema(one, schemas)} for kind, one in operation.body.items()}
    return {"requestBody": {"required": True, "description": operation.body_description, "content": content}}


def _answers(operation: Operation, schemas: Schemas) -> Iterator[tuple[int, Json]]:
    """Successes and then errors, by status."""
    cases = [case for case in CASES if case.code in operation.codes and (case.code, case.status) not in _OF_NO_ROUTE]
    limits = OF_LIMITS if "insufficient_quota" in operation.codes else ()
    for status, answer in operation.answers.items():
        if status < 400:
            yield status, _answer(status, answer, schemas, limits)
    for status, of_status in groupby(cases, lambda case: case.status):
        body = operation.answers.get(status)
        yield status, _error(status, list(of_status), None if body is None else _content(body, schemas)[JSON]["schema"])


_OF_NO_ROUTE = {("unknown_url", 404), ("unknown_url", 400), ("method_not_supported", 405)}


def _answer(status: int, answer: Answer, schemas: Schemas, more: Iterable[str]) -> Json:
    return {
        "description": answer.description,
        "headers": _headers(status, (*answer.headers, *more)),
        "content": _content(answer, schemas),
    }


def _content(answer: Answer, schemas: Schemas) -> Json:
    content: Json = {kind: {"schema": _schema(one, schemas)} for kind, one in answer.content.items()}
    if answer.events is not None:
        content[EVENT_STREAM] = {"schema": _event(answer.events, schemas)}
    return content


def _event(events: Events, schemas: Schemas) -> Json:
    """One event, as OpenAPI 3.2 describes them under ``itemSchema``, for which 3.1 has no other place."""
    content = {"anyOf": [_schema(events.kind, schemas), {"$ref": ERROR}]}
    data = [{"type": "string", "contentMediaType": JSON, "contentSchema": content}, *events.other]
    return {
        "type": "object",
        "description": f"Each event. {events.description}",
        "required": ["data"],
        "properties": {"data": {"anyOf": data}},
    }


def _error(status: int, cases: list[ErrorCase], schema: Json | None = None) -> Json:
    """The answer for some codes; ``schema`` where its body is more than the error object."""
    codes: Json = {"properties": {"error": {"properties": {"code": {"enum": [case.code for case in cases]}}}}}
    whole = schema or {"$ref": ERROR}
    return {
        "description": "\n".join(f"- `{case.code or 'null'}`: {case.when}" for case in cases),
        "headers": _headers(status),
        "content": {JSON: {"schema": {"allOf": [whole, codes]}}},
    }


def _case(code: str, status: int) -> ErrorCase:
    return next(case for case in CASES if (case.code, case.status) == (code, status))


def _headers(status: int, more: Iterable[str] = ()) -> Json:
    names = [*OF_EVERY_ANSWER, *more, *OF_STATUS.get(status, ())]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _schema(kind: Any, schemas: Schemas) -> Json:
    return dict(kind) if _is_schema(kind) else schemas[id(kind)]


def _is_schema(kind: Any) -> bool:
    """Whether a body's type is a JSON schema already."""
    return isinstance(kind, Mapping)
