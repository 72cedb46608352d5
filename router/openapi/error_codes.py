"""Every error that an answer may hold: its status, its code, and when it comes. A test finds each in the sources."""

from __future__ import annotations

from dataclasses import dataclass

from router.asgi.body import MAX_JSON_DEPTH, MAX_JSON_ITEMS


@dataclass(frozen=True, slots=True)
class ErrorCase:
    """One code under one status; most codes have only one, and one case has no code."""

    status: int
    code: str | None
    when: str


CASES = (
    ErrorCase(
        400,
        "invalid_json",
        f"The body is not a JSON object, is nested deeper than {MAX_JSON_DEPTH} levels, or has more than "
        f"{MAX_JSON_ITEMS:,} items.",
    ),
    ErrorCase(400, "missing_required_parameter", "A required field is missing."),
    ErrorCase(400, "invalid_type", "A field has the wrong type."),
    ErrorCase(
        400, "invalid_value", "A value is out of range, fields contradict each other, or the task lacks an argument."
    ),
    ErrorCase(400, "string_above_max_length", "A text is too long."),
    ErrorCase(400, "unsupported_parameter", "A field or a key of an object that cannot be honoured."),
    ErrorCase(400, "unsupported_task", "The model does not offer the task; the message lists those that it offers."),
    ErrorCase(400, "context_length_exceeded", "The prompt is too long for the model or for this server."),
    ErrorCase(400, "invalid_image_url", "The image's URL is not one that is allowed."),
    ErrorCase(400, "failed_to_download_image", "The image could not be downloaded from its URL."),
    ErrorCase(400, "invalid_base64_image", "The image is not valid base64."),
    ErrorCase(400, "empty_image_file", "The image has no bytes."),
    ErrorCase(
        400, "invalid_image_format", "Not a PNG, JPEG, WebP, GIF or BMP image, or a variant that cannot be read."
    ),
    ErrorCase(400, "image_file_too_large", "The image has too many bytes."),
    ErrorCase(400, "image_too_large", "The image has too many pixels, or a side that is too long."),
    ErrorCase(400, "image_too_small", "The image has a side that is too short."),
    ErrorCase(400, "image_file_not_found", "The request names a file that the caller does not have."),
    ErrorCase(400, "image_parse_error", "The image is damaged, or its pixels end early."),
    ErrorCase(400, "invalid_image", "The image has too many parts, or cannot be used for another reason."),
    ErrorCase(400, "invalid_multipart", "The body is not a form with a file, or has too many parts."),
    ErrorCase(400, "file_quota_exceeded", "The caller has as many files, or bytes of them, as one may have."),
    ErrorCase(400, "invalid_http", "The bytes are not an HTTP request, or one for a web socket."),
    ErrorCase(
        400, "unknown_url", "No such route, for requests below /v1 that may be meant for a model (not GET or HEAD)."
    ),
    ErrorCase(400, "conflict", "What is to be made is there already, or is used."),
    ErrorCase(400, "idempotency_key_reused", "The Idempotency-Key was used for another request; do not retry."),
    ErrorCase(
        401, None, "The request has no API key where one is asked for, or for files none that tells its caller apart."
    ),
    ErrorCase(401, "invalid_api_key", "The API key is unknown, has expired or was revoked."),
    ErrorCase(403, "key_not_allowed", "The API key is good, and does not allow this."),
    ErrorCase(403, "model_not_allowed", "The API key does not allow this model or this task."),
    ErrorCase(403, "origin_not_allowed", "The request comes from a web page of a site that is not allowed (Origin)."),
    ErrorCase(403, "host_not_allowed", "A server on a loopback address is asked under another name (Host)."),
    ErrorCase(404, "model_not_found", "No model of this name is served."),
    ErrorCase(404, "file_not_found", "The caller has no file of this id."),
    ErrorCase(404, "response_not_found", "Earlier responses are asked for by their id, and none are stored."),
    ErrorCase(404, "files_not_enabled", "This server keeps no files."),
    ErrorCase(404, "not_found", "There is no organisation, account or key of this id."),
    ErrorCase(404, "accounts_not_enabled", "This server keeps no accounts."),
    ErrorCase(404, "unknown_url", "No such route."),
    ErrorCase(405, "method_not_supported", "The route does not have this method; the header Allow lists its methods."),
    ErrorCase(408, "request_timeout", "The headers or the body arrived too slowly; the connection is closed."),
    ErrorCase(409, "idempotency_key_in_use", "The same request with this Idempotency-Key still runs; retry it."),
    ErrorCase(413, "request_too_large", "The body has too many bytes."),
    ErrorCase(
        429,
        "rate_limit_exceeded",
        "More than the limits of the key allow, or too many wrong keys; Retry-After says when to try again.",
    ),
    ErrorCase(429, "insufficient_quota", "The credits of the account or a budget of the key are spent; do not retry."),
    ErrorCase(431, "headers_too_large", "The headers have too many bytes."),
    ErrorCase(500, "engine_failure", "The model failed; the request may be fine."),
    ErrorCase(500, "internal_error", "The server failed; the request may be fine."),
    ErrorCase(503, "overloaded", "There is no room for the request now; Retry-After says when to try again."),
    ErrorCase(503, "model_not_ready", "The model is still loading; Retry-After says when to try again."),
    ErrorCase(503, "accounts_unavailable", "Accounts cannot be read now; Retry-After says when to try again."),
    ErrorCase(503, "files_unavailable", "The store of files does not answer; Retry-After says when to try again."),
    ErrorCase(504, "timeout", "The request took longer than this server's deadline."),
    ErrorCase(507, "file_store_full", "All callers together have as many files as this server keeps; do not retry."),
)

OF_HTTP = (
    "invalid_http",
    "origin_not_allowed",
    "host_not_allowed",
    "request_timeout",
    "headers_too_large",
    "internal_error",
)
"""Of every route."""
OF_OPEN = (*OF_HTTP, "request_too_large", "overloaded")
"""Of every route but those about health: they are refused while too much else is served, and their bodies are read."""
OF_KEYS = (None, "invalid_api_key", "key_not_allowed", "rate_limit_exceeded", "accounts_unavailable")
"""Of every route that asks for a key where the server keeps accounts."""
OF_ROUTES = (*OF_OPEN, *OF_KEYS)
"""Of every route that is not open to everybody."""
OF_JSON = (
    "invalid_json",
    "missing_required_parameter",
    "invalid_type",
    "invalid_value",
    "string_above_max_length",
    "unsupported_parameter",
)
OF_IMAGES = (
    "invalid_image_url",
    "failed_to_download_image",
    "invalid_base64_image",
    "empty_image_file",
    "invalid_image_format",
    "image_file_too_large",
    "image_too_large",
    "image_too_small",
    "image_parse_error",
    "image_file_not_found",
    "invalid_image",
)
OF_MODELS = (
    "unsupported_task",
    "context_length_exceeded",
    "model_not_found",
    "engine_failure",
    "model_not_ready",
    "timeout",
)
OF_FILES = (*OF_ROUTES, "files_not_enabled", "files_unavailable", "timeout")
OF_PAID = ("model_not_allowed", "insufficient_quota", "idempotency_key_reused", "idempotency_key_in_use")
OF_REQUESTS = (*OF_ROUTES, *OF_JSON, *OF_IMAGES, *OF_MODELS, *OF_FILES, *OF_PAID)
"""Of every route that sends a request to a model."""
