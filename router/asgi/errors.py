"""Errors as clients see them: the one table from our exceptions to status, type and code.

Every answer other than a success is made here, with all four keys of OpenAI's error object. The text of another
library's exception never becomes part of one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from accounts.errors import (
    AccountsUnavailable,
    Conflict,
    KeyReused,
    LimitReached,
    ModelNotAllowed,
    NoKey,
    NotAllowed,
    NotFound,
    QuotaSpent,
    StillRunning,
    WrongKey,
)
from router.suggest import did_you_mean
from vlm.errors import (
    DeadlineExceeded,
    DeploymentFailed,
    EngineFailure,
    InvalidImage,
    InvalidRequest,
    LostTooOften,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    UnsupportedTask,
    VlmError,
)

Json = dict[str, Any]

INVALID = "invalid_request_error"
SERVER = "server_error"
QUOTA = "insufficient_quota"


class BodyTooLarge(InvalidRequest):
    """The request body has more bytes than the router reads."""


class BodyTooSlow(InvalidRequest):
    """The request body did not arrive in time."""


class HeadTooLarge(InvalidRequest):
    """The request line and the headers have more bytes than the server reads."""


class HeadTooSlow(InvalidRequest):
    """The headers did not arrive in time."""


class Forbidden(InvalidRequest):
    """The request comes from a web page of another site, or names a host that this server is not."""


class KeyRequired(InvalidRequest):
    """The request needs a credential that tells its caller apart from all others."""


class FileQuotaExceeded(InvalidRequest):
    """The caller has as many files, or bytes of them, as one may have."""


class FileStoreFull(VlmError):
    """All callers together have as many files, or bytes of them, as this server keeps."""


class NoSuchFile(VlmError):
    """The caller has no file of this id."""


class FilesUnavailable(VlmError):
    """The store of uploaded files does not answer."""


class FilesOff(VlmError):
    """This server keeps no files."""


class AccountsOff(VlmError):
    """This server keeps no accounts."""


class NotStored(InvalidRequest):
    """What is asked for by its id is of a kind that is not stored here."""


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind of exception is answered; ``code`` and ``param`` are used where the exception has none.

    ``should_retry`` overrules what OpenAI's clients would conclude from the status.
    """

    status: int
    type: str
    code: str | None = None
    param: str | None = None
    retry_after_s: int | None = None
    should_retry: bool | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Those that tell a client whether to try again, and when."""
        found = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
        return found if self.should_retry is None else {**found, "x-should-retry": str(self.should_retry).lower()}


TABLE: Mapping[type[VlmError], Row] = {
    Forbidden: Row(403, INVALID),
    NotStored: Row(404, INVALID, "response_not_found"),
    BodyTooSlow: Row(408, INVALID, "request_timeout"),
    HeadTooSlow: Row(408, INVALID, "request_timeout"),
    HeadTooLarge: Row(431, INVALID, "headers_too_large"),
    BodyTooLarge: Row(413, INVALID, "request_too_large"),
    KeyRequired: Row(401, INVALID),
    NoKey: Row(401, INVALID),
    WrongKey: Row(401, INVALID, "invalid_api_key"),
    NotAllowed: Row(403, INVALID, "key_not_allowed"),
    ModelNotAllowed: Row(403, INVALID, "model_not_allowed", "model"),
    NotFound: Row(404, INVALID, "not_found"),
    AccountsOff: Row(404, INVALID, "accounts_not_enabled"),
    Conflict: Row(400, INVALID, "conflict", should_retry=False),
    KeyReused: Row(400, INVALID, "idempotency_key_reused", should_retry=False),
    StillRunning: Row(409, INVALID, "idempotency_key_in_use", retry_after_s=1),  # clients retry 409
    LimitReached: Row(429, "requests", "rate_limit_exceeded"),  # or of another kind, and it knows until when
    QuotaSpent: Row(429, QUOTA, "insufficient_quota", should_retry=False),  # clients retry 429 in vain otherwise
    AccountsUnavailable: Row(503, SERVER, "accounts_unavailable", retry_after_s=1),
    FileQuotaExceeded: Row(400, INVALID, "file_quota_exceeded"),
    InvalidImage: Row(400, INVALID, "invalid_image"),
    UnsupportedTask: Row(400, INVALID, "unsupported_task", "task"),
    InvalidRequest: Row(400, INVALID),
    ModelNotFound: Row(404, INVALID, "model_not_found", "model"),
    NoSuchFile: Row(404, INVALID, "file_not_found", "id"),
    FilesOff: Row(404, INVALID, "files_not_enabled"),
    FileStoreFull: Row(507, SERVER, "file_store_full", should_retry=False),  # clients retry 5xx in vain otherwise
    FilesUnavailable: Row(503, SERVER, "files_unavailable", retry_after_s=1),
    DeploymentFailed: Row(503, SERVER, "model_not_ready", "model", should_retry=False),  # it needs its operator
    ModelNotReady: Row(503, SERVER, "model_not_ready", "model", retry_after_s=2),
    Overloaded: Row(503, SERVER, "overloaded", retry_after_s=1),
    DeadlineExceeded: Row(504, SERVER, "timeout"),
    LostTooOften: Row(500, SERVER, "engine_failure", should_retry=False),  # it would cost further replicas
    EngineFailure: Row(500, SERVER, "engine_failure"),
    VlmError: Row(500, SERVER),
}

INTERNAL = VlmError("The server failed while it processed this request.", code="internal_error")
"""The error that a client gets for an unexpected exception."""

NO_WEBSOCKETS = InvalidRequest("There are no web sockets here; send ordinary requests.", code="invalid_http")


def row_of(error: VlmError) -> Row:
    """The table's row for the nearest class of ``error``."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def code_of(error: VlmError) -> str:
    """The code that clients see; where there is none, the error's type."""
    row = row_of(error)
    return error.code or row.code or row.type


def error_body(error: VlmError) -> Json:
    """OpenAI's error object."""
    row = row_of(error)
    kind = error.kind if isinstance(error, LimitReached) else row.type
    return _body(error.message, kind, error.param or row.param, error.code or row.code)


def error_response(error: VlmError, extra: Mapping[str, Any] | None = None) -> Response:
    """The whole answer for ``error``; ``extra`` holds further keys of the body."""
    row = row_of(error)
    return json_response({**error_body(error), **(extra or {})}, row.status, headers_of(error))


def headers_of(error: VlmError) -> dict[str, str]:
    """Those that tell a client whether to try again, and when, or how to bring a key.

    What is known of a queue or of a limit comes before the table. ``retry-after`` has whole seconds, never too few;
    OpenAI's clients read the milliseconds first.
    """
    row = row_of(error)
    found = {**row.headers, "www-authenticate": "Bearer"} if row.status == 401 else row.headers
    if isinstance(error, LimitReached):
        ms = max(1, math.ceil(error.retry_after_s * 1000))
        return {**found, "retry-after": str(math.ceil(ms / 1000)), "retry-after-ms": str(ms)}
    known = error.retry_after_s if isinstance(error, Overloaded) else None
    return found if known is None else {**found, "retry-after": str(max(1, known))}


async def on_vlm_error(_request: Request, error: Exception) -> Response:
    """Starlette's handler for the errors that this project raises on purpose."""
    return error_response(cast(VlmError, error))  # it is registered for this class alone


async def on_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for errors of its routing: an unknown path or method."""
    refusal = cast(HTTPException, error)  # it is registered for this class alone
    message, code = _ROUTING.get(refusal.status_code, ("The request cannot be answered.", None))
    words = message.format(guess=_nearest_route(request) if refusal.status_code == 404 else "")
    may_be_for_a_model = request.method not in SAFE_METHODS and request.scope["path"].startswith(API)
    status = 400 if refusal.status_code == 404 and may_be_for_a_model else refusal.status_code
    return json_response(_body(words, INVALID, None, code), status, refusal.headers)


def _nearest_route(request: Request) -> str:
    """A guess at the route that was meant: most often, a client's base URL lacks ``/v1`` or has it twice."""
    paths = (route.path for route in request.app.routes if isinstance(route, Route))
    # All begin alike, so that less than this says little.
    return did_you_mean(request.url.path, [path for path in paths if "{" not in path], cutoff=0.8)


API = "/v1/"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""An unknown URL is 404 for these. For others below :data:`API` it is 400: proxies such as LiteLLM take every 404 to a
request for a model to mean that the deployment does not have the model, and send it no more requests for a while, from
whomever they come. So one client that tries an API that is not here would make the model unavailable to all others."""

_ROUTING = {
    404: (
        "Unknown URL.{guess} GET /v1/models lists the models that are served, and GET /openapi.json all routes.",
        "unknown_url",
    ),
    405: (
        "This URL does not support this method; the Allow header lists those that it supports.",
        "method_not_supported",
    ),
}


def json_response(body: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(encode(body), status, headers, media_type="application/json")


_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode(body: Json) -> bytes:
    """Compact JSON as UTF-8. A lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    return _COMPACT.encode(body).encode("utf-8", errors="replace")


def _body(message: str, kind: str, param: str | None, code: str | None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
