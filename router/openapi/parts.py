"""What several routes share: headers, parameters, credentials, and the words about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.asgi.body import MAX_JSON_DEPTH, MAX_JSON_ITEMS
from router.config import RouterConfig
from router.openapi.operation import Parameter

Schema = Mapping[str, Any]

CONFIG = RouterConfig()
"""The limits that hold unless the operator sets others."""

DESCRIPTION = f"""\
Small vision-language models behind OpenAI's formats, with the objects that they find as typed JSON.

- Errors have OpenAI's body, whatever their status: an `error` with `message`, `type`, `param` and `code`.
- `GET` routes answer `HEAD` too. Requests to unknown URLs get `unknown_url`: 404, or 400 if they may be meant for a \
model (below `/v1`, with a method other than `GET` and `HEAD`); other methods of known URLs get 405 \
`method_not_supported`.
- The headers of a request have at most {CONFIG.max_head_bytes >> 10} KiB, and its body at most \
{CONFIG.max_body_bytes >> 20} MiB, unless the operator has set other limits.
- Web pages of other sites are refused (403) unless the operator allows them; the headers `Origin` and `Host` tell.
- Where the server keeps accounts, every request needs an API key, except to the routes about health, this document \
and the schema. Elsewhere keys are not checked: they only tell callers apart that have the same address.
- The schema of `text/event-stream` is that of each event, whose `data` is JSON. Lines that begin with a colon are \
comments, sent while the model is silent. After an event with an error, nothing follows."""

JSON_BODY = f"""\
Read as JSON whatever the Content-Type says, in UTF-8. Unknown fields are ignored and reported. Types are not \
converted: "1" is not a number. null means the same as leaving a field out. At most \
{CONFIG.max_body_bytes >> 20} MiB, {MAX_JSON_DEPTH} levels of nesting, and {MAX_JSON_ITEMS:,} items in lists and \
objects."""

TAGS = {
    "models": "Which models there are.",
    "chat": "Requests to models in OpenAI's format of chat completions.",
    "responses": "Requests to models in OpenAI's Responses API, without storage.",
    "moondream": "Requests to models in the format of Moondream's cloud.",
    "files": "Images that are uploaded once and asked about often.",
    "accounts": "Keys and accounts, where the server keeps them.",
    "health": "Whether this server can answer.",
    "schemas": "What is sent and received.",
}

ID_RULE = "of up to 128 letters, digits, ., _, : or -"
PARAMETERS = (
    Parameter(
        "X-Request-ID",
        "header",
        f"Used as the id of the request if it is one {ID_RULE}; else it is ignored.",
        {"type": "string"},
    ),
    Parameter("X-Client-Request-ID", "header", f"Sent back if it is one {ID_RULE}.", {"type": "string"}),
    Parameter(
        "traceparent", "header", "The caller's trace (W3C); it goes on here if traces are on.", {"type": "string"}
    ),
)
"""Of every route."""

IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "1 to 255 printable ASCII characters. Where the server keeps accounts, the same request with the same key is "
    "answered once, and whoever sends it again gets the same answer, which is paid once. Elsewhere it has no effect.",
    {"type": "string"},
)
"""Of the routes to models."""

HEADERS: Mapping[str, tuple[str, Schema]] = {
    "x-request-id": ("The id of the request, also in the logs.", {"type": "string", "minLength": 1}),
    "x-client-request-id": ("The client's own id, if it sent one.", {"type": "string", "minLength": 1}),
    "openai-processing-ms": ("Milliseconds until the answer began.", {"type": "integer", "minimum": 0}),
    "x-gigarouter-model": ("Canonical name of the model that answers.", {"type": "string", "minLength": 1}),
    "x-should-retry": ("false: trying again does not help, whatever the status says.", {"enum": ["false"]}),
    "content-disposition": ("The file's name, and that it is to be saved.", {"type": "string"}),
    "x-content-type-options": ("A browser does not take the content for anything else.", {"const": "nosniff"}),
    "cache-control": ("The content is not kept by browsers and proxies.", {"type": "string"}),
    "retry-after": ("Seconds after which to try again.", {"type": "integer", "minimum": 1}),
    "retry-after-ms": ("The same in milliseconds, where a limit was reached.", {"type": "integer", "minimum": 1}),
    **{
        f"x-ratelimit-{name}-{of}": (f"{words.capitalize()} {of} in a minute, where the key has a limit.", schema)
        for of in ("requests", "tokens")
        for name, words, schema in (
            ("limit", "the most", {"type": "integer"}),
            ("remaining", "what is left of", {"type": "integer"}),
            ("reset", "the time, as 1s or 6m0s, until there are all of the", {"type": "string"}),
        )
    },
    "www-authenticate": ("How a key is to be sent.", {"const": "Bearer"}),
    "idempotent-replayed": ("The answer was made for an earlier request with this key.", {"const": "true"}),
    "idempotent-stored": ("The answer is too long to be kept for a later request with this key.", {"const": "false"}),
}
OF_MODELS = ("x-gigarouter-model", "idempotent-replayed", "idempotent-stored")
"""Of the answers of models."""
OF_LIMITS = tuple(name for name in HEADERS if name.startswith("x-ratelimit-"))
"""Of the answers of models, and of refusals for too much."""
OF_EVERY_ANSWER = ("x-request-id", "x-client-request-id", "openai-processing-ms")
ALWAYS = (
    "x-request-id",
    "x-gigarouter-model",
    "content-disposition",
    "x-content-type-options",
    "www-authenticate",
)
"""Headers that no answer that may have them lacks; refusals of broken HTTP have only the first."""

SECURITY_SCHEMES: Mapping[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Checked where the server keeps accounts."},
    "moondream": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Moondream-Auth",
        "description": "The same, as Moondream's clients send it.",
    },
}
