"""The headers that Ray Serve reads before the application: those that a client must not use are taken out.

A client could otherwise switch off the server's timeout or its own cancellation, choose the replica, or send bytes that
Serve cannot decode, which end in a plain "Internal Server Error".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from router.asgi.middleware import new_id, safe_id

RawHeaders = Iterable[tuple[bytes, bytes]]

REQUEST_ID = b"x-request-id"
SERVE_HEADERS = frozenset(
    (
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"x-session-id",
        b"serve-multiplexed-model-id",
    )
)
"""With hyphens; Serve reads them with underscores too."""
SERVE_PREFIX = b"x-serve-"
TRACING = frozenset((b"traceparent", b"tracestate", b"baggage"))
"""Serve decodes them when its tracing is on."""


def clean(headers: RawHeaders, session_header: str = "") -> list[tuple[bytes, bytes]]:
    """The headers without those for Serve, and with exactly one ``x-request-id``: the client's if it is safe.

    Args:
        headers: Those of an ASGI scope.
        session_header: A further name under which Serve looks for a session.
    """
    barred = SERVE_HEADERS | {_normal(session_header.encode())}
    kept = list(_kept(headers, barred))
    ids = [value for name, value in kept if name == REQUEST_ID]
    own = safe_id(ids[0].decode("latin-1")) if len(ids) == 1 else None
    others = [(name, value) for name, value in kept if name != REQUEST_ID]
    return [*others, (REQUEST_ID, (own or new_id()).encode())]


def _kept(headers: RawHeaders, barred: frozenset[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        normal = _normal(name)
        is_readable = name.isascii() and (value.isascii() or normal not in TRACING)
        if is_readable and normal not in barred and not normal.startswith(SERVE_PREFIX):
            yield name, value


def _normal(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")
