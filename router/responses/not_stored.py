"""The routes by which OpenAI reads, cancels and deletes earlier responses."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from router.asgi.errors import NotStored


async def not_stored(_request: Request) -> Response:
    """Say that there are no earlier responses; a client must not take it for an unknown model or route."""
    raise NotStored(
        "Responses are not stored here: keep the answer of POST /v1/responses, it cannot be asked for again."
    )
